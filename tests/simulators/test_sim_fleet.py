"""A fleet speaks as agents do, and counts nothing as delivered that a gateway's own ack did not name."""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.contract.messages import Batch, Birth
from gateway.ingest import GatewayBrokerConfig, Ingest
from simulators import fleet
from simulators.bench.ours import Parts
from simulators.broker import Broker, nats
from simulators.fleet import Fleet, FleetNode, make_nodes

NOW_US = 1_780_000_000_000_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with nats(tmp_path / "broker") as running:
        yield running


@contextmanager
def gateway(broker: Broker, folder: Path) -> Iterator[Parts]:
    """The real pipeline behind the broker."""
    folder.mkdir()
    parts = Parts(folder)
    config = GatewayBrokerConfig(url=broker.url, backoff_cap_s=0.2)
    ingest = Ingest(config, parts.pipeline, parts.telemetry, random.Random(1), lambda: time.time_ns() // 1000, None)
    thread = threading.Thread(target=ingest.run)
    thread.start()
    try:
        yield parts
    finally:
        ingest.stop()
        thread.join(20)
        parts.close()


@pytest.mark.parametrize("count", [1, 10, 37, 100])
def test_what_a_node_says_is_valid_and_its_seqs_have_no_hole(count: int) -> None:
    (node,) = make_nodes(1, 7)
    wanted = 1
    for turn in range(300):
        said = node.event(NOW_US + turn) if turn % 3 else node.readings(NOW_US + turn * 100_000, count)
        batch = Batch.model_validate_json(said.payload)
        seqs = [row[0] for row in batch.readings] + [event.seq for event in batch.events]
        assert seqs == list(range(wanted, wanted + len(seqs)))
        assert (said.low, said.high) == (seqs[0], seqs[-1])
        assert len({(row[1], row[2], row[3]) for row in batch.readings}) == len(batch.readings)
        wanted = said.high + 1
    _, birth = node.birth(NOW_US)
    assert Birth.model_validate_json(birth).next == wanted


def test_the_same_seed_says_the_same_but_never_in_the_same_epoch() -> None:
    one, again = FleetNode("fleet-1", random.Random(3)), FleetNode("fleet-1", random.Random(3))
    batches = [[Batch.model_validate_json(node.readings(NOW_US).payload) for _ in range(3)] for node in (one, again)]
    assert [batch.readings for batch in batches[0]] == [batch.readings for batch in batches[1]]
    assert one.epoch != again.epoch


def test_every_record_that_a_fleet_counts_as_acked_is_in_the_gateway(broker: Broker, tmp_path: Path) -> None:
    with gateway(broker, tmp_path / "gateway") as parts:
        report = Fleet(broker.url, nodes=20, rate=200, connections=3, events=0.2, seed=5).run(2)
        counts = parts.counts()
    assert report.messages >= 200
    assert report.lost == report.rejected == counts["quarantine"] == 0
    assert report.acked == report.produced == counts["readings"] + counts["events"]
    assert report.ack_p50_ms is not None
    assert report.ack_p95_ms is not None
    assert 0 < report.ack_p50_ms <= report.ack_p95_ms < 10_000


def test_without_a_gateway_nothing_is_acked_whatever_the_broker_says(broker: Broker) -> None:
    report = Fleet(broker.url, nodes=4, rate=50, connections=2).run(1, drain_s=0.5)
    assert report.produced > 0
    assert report.acked == 0
    assert report.lost == report.produced
    assert report.ack_p50_ms is None


def test_what_a_broker_lost_is_sent_again_until_it_is_acked(broker: Broker, tmp_path: Path) -> None:
    with gateway(broker, tmp_path / "gateway") as parts:

        def restart_empty() -> None:
            broker.wipe()
            broker.start()

        wiping = threading.Timer(2.5, restart_empty)
        wiping.start()
        report = Fleet(broker.url, nodes=20, rate=200, connections=2, events=0.1).run(4, drain_s=40)
        wiping.join()
        counts = parts.counts()
    assert report.resent > 0
    assert report.lost == 0
    assert report.acked == report.produced == counts["readings"] + counts["events"]


def test_the_command_says_what_became_of_it_and_fails_when_records_stay_unanswered(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway(broker, tmp_path / "gateway"):
        assert fleet.main([broker.url, "--nodes", "3", "--rate", "30", "--for", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert said["acked"] == said["produced"] > 0
    broker.stop()
    assert fleet.main([broker.url, "--for", "1"]) == 1
    assert "no broker" in capsys.readouterr().err
    assert fleet.main([broker.url, "--nodes", "0"]) == 2
