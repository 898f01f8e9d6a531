"""Several real processes over one PostgreSQL and a broker: whatever stops, is killed or paused, nothing is lost or done twice."""

import itertools
import json
import os
import queue
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.broker import parse_url
from edge.contract.topics import Channel, Topic, partition_of, topic_for
from simulators.broker import nats
from simulators.cluster import cluster
from simulators.phone import Phone
from simulators.several import LEASE_S, Load, Several, paged_twice, process_name, until
from tests import postgresql

pytestmark = pytest.mark.services

CANARY = 'canary = { at = "00:00", to = "hunter-7" }'


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone() as phone:
        yield phone


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats(tmp_path_factory.mktemp("broker"), ack_wait_s=2) as broker:
        yield broker.url


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, server: postgresql.Server, broker: str, phone: Phone) -> Iterator[Several]:
    """The one that most tests here share: each leaves two processes of each role, and one of `api`."""
    with Several(tmp_path_factory.mktemp("town"), server.make("town"), broker, phone, CANARY) as town:
        for role in ("ingest", "ingest", "rules", "rules", "deliver", "deliver", "api"):
            town.start(role)
        _up(town)
        town.note_writers()
        until(town.leader, "somebody judges")
        yield town


def _up(town: Several) -> None:
    until(lambda: town.ask("SELECT 1 FROM pg_tables WHERE tablename = 'leases'"), "the schema is there")
    town.shared()


def test_two_four_one_workers_under_load(town: Several, broker: str, phone: Phone) -> None:
    before, held = town.points(), [town.ask("SELECT name, holder FROM leases")]
    with Load(broker, seed=1).running() as load:
        more = town.start("ingest", 2)
        town.shared()
        held.append(town.ask("SELECT name, holder FROM leases"))
        for name in ("ingest-2", *more):
            town.stop(name)
        town.shared()
        held.append(town.ask("SELECT name, holder FROM leases"))
    town.start("ingest")
    stayed = set(held[0]).intersection(*held[1:])
    moved = {partition for partition in range(64) if f"{partition:02d}" not in dict(stayed)}
    assert load.faults(town, before, moved) == []
    assert len(moved) < 64  # of the others it is known that the order was kept
    assert town.ended == []
    assert paged_twice(town, phone) == []


def test_kill_9_of_processes_of_each_role_under_load(town: Several, broker: str, phone: Phone) -> None:
    before = town.points()
    town.ended.clear()
    town.shared()
    with Load(broker, seed=2).running() as load:
        for name in ("ingest-1", town.leader() or "", "deliver-1"):
            town.kill(name)
        until(lambda: len(town.ended) == 3, "they were started anew")
        town.shared()
        until(town.leader, "somebody judges")
    assert load.faults(town, before) == []
    assert {code for _, code in town.ended} == {-9}
    assert paged_twice(town, phone, repeats=1) == []


def test_kill_9_of_the_database_under_load(town: Several, server: postgresql.Server, broker: str, phone: Phone) -> None:
    before = town.points()
    town.ended.clear()
    with Load(broker, seed=3).running() as load:
        until(lambda: any(node.springs for node in load.nodes), "something happens")
        server.kill()
        with pytest.raises(urllib.error.HTTPError) as told:
            town.get("health")
        assert (told.value.code, json.load(told.value)["parts"]["state"]) == (503, "down")
        threading.Event().wait(LEASE_S + 1)  # longer than a lease: everybody is past the time, and nobody is to blame
        server.start()
        town.shared()
    assert load.faults(town, before) == []
    assert town.ended == []
    assert paged_twice(town, phone, repeats=1) == []


def test_who_was_paused_for_longer_than_a_lease_commits_nothing_any_more(town: Several, broker: str, phone: Phone) -> None:
    before = town.points()
    town.ended.clear()
    town.shared()
    with Load(broker, seed=4).running() as load:
        paused = ["ingest-1", town.leader() or ""]
        pids = [town.pid(name) for name in paused]
        names = [process_name(pid) for pid in pids]
        until(lambda: all(town.written_by(name) for name in names), "both are at work")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: not town.count("workers WHERE name = ANY(%(names)s)", names=names), "they were taken for dead")
        until(lambda: sum(town.held().values()) == 64, "others hear their partitions")
        until(lambda: town.leader() not in (None, *paused), "another judges")
        writing = "pg_stat_activity WHERE application_name = ANY(%(names)s) AND backend_xid IS NOT NULL"
        until(lambda: not town.count(writing, names=names), "no transaction of theirs is open")
        written = [town.written_by(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        until(lambda: sorted(town.ended) == sorted((name, 1) for name in paused), "they ended, and were started anew")
        assert [town.written_by(name) for name in names] == written
        town.shared()
    assert load.faults(town, before) == []
    assert paged_twice(town, phone, repeats=1) == []


def test_two_that_deliver_share_the_work_and_each_message_arrives_once(town: Several, phone: Phone) -> None:
    phone.slow(0.05)
    _queue(town, "shared", 200)
    until(lambda: _sent(town, "shared") == 200, "all of them are sent")
    times = phone.times()
    assert {times.get(f"shared-{at}") for at in range(200)} == {1}
    writers = [process_name(town.pid(name)) for name in ("deliver-1", "deliver-2")]
    assert all(town.written_by(name, "notifications") for name in writers)


def test_what_a_killed_one_was_sending_is_sent_by_another(town: Several, phone: Phone) -> None:
    town.ended.clear()
    phone.slow(0.3)
    _queue(town, "taken over", 36)
    until(lambda: _sent(town, "taken over") > 4, "some are sent")
    town.kill("deliver-2")
    until(lambda: _sent(town, "taken over") == 36, "all of them are sent")
    phone.answer(200)
    times = phone.times()
    assert all(times.get(f"taken over-{at}") for at in range(36))
    # One a contact may have been on its way: it comes again, under its own id.
    assert sum(times[f"taken over-{at}"] - 1 for at in range(36)) <= 6
    until(lambda: town.ended, "it was started anew")


def _queue(town: Several, what: str, number: int) -> None:
    """Queues so many messages for six contacts."""
    now_us = time.time_ns() // 1000
    for at in range(number):
        body = json.dumps({"id": f"{what}-{at}", "kind": "test", "severity": "warning", "title": "試験", "body": "試験です"})
        town.ask(
            """
            INSERT INTO notifications (id, kind, contact, severity_rank, state, body, created_us, due_us, attempts, channel)
            VALUES (%(id)s, 'test', %(contact)s, 1, 'queued', %(body)s, %(now_us)s, %(now_us)s, 0, 'webhook')
            """,
            id=f"{what}-{at}", contact=f"hunter-{2 + at % 6}", body=body, now_us=now_us,
        )  # fmt: skip


def _sent(town: Several, what: str) -> int:
    return town.count("notifications WHERE id LIKE %(id)s AND state = 'sent'", id=f"{what}-%")


def test_what_one_process_commits_is_on_the_stream_of_another(town: Several, broker: str) -> None:
    until(lambda: _answers(town), "the API is there")
    heard: list[str] = []

    def listen() -> None:
        with urllib.request.urlopen(town.request("stream"), timeout=20) as lines:  # noqa: S310 - our own address
            kind = ""
            for line in lines:
                name, _, value = line.decode().strip().partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and "fleet-6-" in value:
                    heard.append(kind)
                    if {"event", "alert", "latest"} <= {*heard}:
                        return

    listener = threading.Thread(target=listen)
    listener.start()
    with Load(broker, seed=6, nodes=4, rate=40).running() as load:
        listener.join(60)
    assert {*heard} >= {"event", "alert", "latest"}
    assert load.report.lost == 0


def test_an_answer_at_one_process_is_known_to_the_one_that_judges(town: Several) -> None:
    _spring(town, "answered")
    until(lambda: town.count("alerts WHERE node = 'answered' AND state = 'firing'") == 1, "it fires")
    [(alert,)] = town.ask("SELECT id FROM alerts WHERE node = 'answered'")
    town.get(f"alerts/{alert}/acknowledge", {})
    page = "pages WHERE state = 'answered' AND id IN (SELECT page FROM page_alerts WHERE alert = %(alert)s)"
    until(lambda: town.count(page, alert=alert) == 1, "nobody is asked any more")
    assert town.ask("SELECT state FROM alerts WHERE id = %(alert)s", alert=alert) == [("acknowledged",)]


def _spring(town: Several, node: str) -> None:
    """As its ingest process would commit it."""
    town.ask(
        """
        INSERT INTO events (node, epoch, seq, device, type, class, time_us, node_time_us, received_us, late, clock_trusted, body)
        VALUES (%(node)s, 'e', 1, 'trap-1', 'trap_sprung', 'alarm', %(now_us)s, %(now_us)s, %(now_us)s, false, true, '{}')
        """,
        node=node, now_us=time.time_ns() // 1000,
    )  # fmt: skip


def _answers(town: Several, of: str = "api-1") -> bool:
    try:
        return bool(town.get("health", of=of))
    except OSError:
        return False


class Desk:
    """A page that is open somewhere: it knows alerts by the stream, and by the lists once the first line of that is there. Where
    the stream ends it goes to the next process that answers.
    """

    def __init__(self, town: Several, *answers: str) -> None:
        self._town, self._answers = town, answers
        self.states: dict[str, str] = {}
        """By the alert's id."""
        self.streams = 0
        """So often it began to listen."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Desk":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        for of in itertools.cycle(self._answers):
            asked = self._town.request("stream", of=of)
            # Whoever was killed ends the connection, or a line in its middle.
            with suppress(OSError, HTTPException, ValueError), urllib.request.urlopen(asked, timeout=20) as lines:  # noqa: S310
                self.streams += 1
                kind = ""
                for line in lines:
                    if self._closing.is_set():
                        return
                    name, _, value = line.decode().strip().partition(": ")
                    kind = value if name == "event" else kind
                    if line == b": here\n" or (name, kind) == ("event", "resync"):
                        self.states |= {one["id"]: one["state"] for one in self._town.get("alerts?limit=1000", of=of)["alerts"]}
                    elif (name, kind) == ("data", "alert"):
                        said = json.loads(value)
                        self.states[said["id"]] = said["state"]


def test_kill_9_of_a_process_that_answers_amid_requests_and_a_stream(town: Several, phone: Phone) -> None:
    town.ended.clear()
    came_again = sum(times - 1 for times in phone.times().values())
    [other] = town.start("api")
    until(lambda: _answers(town) and _answers(town, other), "both answer")
    for at in range(24):
        _spring(town, f"answering-{at}")
    firing = "SELECT id FROM alerts WHERE node LIKE 'answering-%%' AND state = 'firing'"
    until(lambda: len(town.ask(firing)) == 24, "all of them fire")
    alerts = [one for (one,) in town.ask(firing)]
    answered: dict[str, list[int | None]] = {one: [] for one in alerts}
    waiting = queue.SimpleQueue[str]()
    for one in alerts:
        waiting.put(one)

    def acknowledge() -> None:
        with suppress(queue.Empty):
            while True:
                one = waiting.get_nowait()
                answered[one].append(_status(town, one, "api-1"))
                if answered[one] == [None]:
                    answered[one].append(_status(town, one, other))

    clerks = [threading.Thread(target=acknowledge) for _ in range(4)]
    with Desk(town, "api-1", other) as desk:
        until(lambda: {*alerts} <= desk.states.keys(), "the page shows them")
        for clerk in clerks:
            clerk.start()
        until(lambda: len(town.ask(firing)) < 18, "some are acknowledged")
        with town.standing_still() as stopped:
            at_work = process_name(town.pid("api-1"))
            until(lambda: at_work in stopped(), "requests are in the middle of what they write")
            town.kill("api-1")
        for clerk in clerks:
            clerk.join()
        until(lambda: all(desk.states[one] == "acknowledged" for one in alerts), "the page shows that all are acknowledged")
        assert desk.streams > 1
    cut = [statuses for statuses in answered.values() if statuses[0] is None]
    assert cut, "no request was under way"
    # 409: it was done already, only the answer was lost.
    assert all(statuses[1] in (200, 409) for statuses in cut)
    assert all(statuses == [200] for statuses in answered.values() if statuses[0] is not None)
    steps = town.ask(
        "SELECT alert, count(*) FROM alert_history WHERE alert = ANY(%(alerts)s) AND after = 'acknowledged' GROUP BY alert",
        alerts=alerts,
    )
    assert dict(steps) == dict.fromkeys(alerts, 1)
    assert paged_twice(town, phone, came_again) == []
    until(lambda: town.ended == [("api-1", -9)] and _answers(town), "it was started anew")
    town.stop(other)


def _status(town: Several, alert: str, of: str) -> int | None:
    """What a request to acknowledge it came to; None where no answer came."""
    try:
        town.get(f"alerts/{alert}/acknowledge", {}, of)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return None
    return 200


def test_a_node_is_spoken_to_by_whichever_process_hears_it(town: Several, broker: str) -> None:
    town.shared()
    holders = {int(name): holder for name, holder in town.ask("SELECT name, holder FROM leases WHERE name <> 'rules'")}
    by_holder: dict[int, str] = {}
    for at in range(100):
        by_holder.setdefault(holders[partition_of(f"spoken-{at}")], f"spoken-{at}")
    assert len(by_holder) == 2
    due = {topic_for(Topic(node, Channel.COMMAND, f"c{at}")) for at, node in enumerate(by_holder.values())}
    due |= {topic_for(Topic(node, Channel.DESIRED)) for node in by_holder.values()}
    heard: set[str] = set()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "the-nodes")
    client.on_message = lambda _client, _data, message: heard.add(message.topic)
    host, port, _ = parse_url(broker)
    client.connect(host, port)
    client.subscribe([(topic, 0) for topic in due])
    client.loop_start()
    now_us = time.time_ns() // 1000
    for at, node in enumerate(by_holder.values()):
        town.ask(
            """
            INSERT INTO commands (id, node, name, payload, issued_us, issued_by, expires_us, state)
            VALUES (%(id)s, %(node)s, 'ping', '{}', %(now_us)s, 'desk', %(end_us)s, 'waiting')
            """,
            id=f"c{at}", node=node, now_us=now_us, end_us=now_us + 600_000_000,
        )  # fmt: skip
        town.ask(
            """
            INSERT INTO desired (node, revision, payload, sha256, created_us, created_by)
            VALUES (%(node)s, 1, '{}', '', %(now_us)s, 'desk')
            """,
            node=node, now_us=now_us,
        )  # fmt: skip
    town.ask("INSERT INTO cursors (name, value) VALUES ('desired', 1)")
    try:
        until(lambda: heard == due, "both have their command and their document")
    finally:
        client.loop_stop()
        client.disconnect()


def test_the_test_alarm_goes_by_whichever_process_hears_it(town: Several) -> None:
    until(lambda: town.count("events WHERE node = 'canary'") == 1, "it came back from the broker")
    until(lambda: town.count("alerts WHERE rule = 'canary'") == 1, "its alert is open")


def test_kill_9_of_one_of_three_brokers_under_load(
    tmp_path_factory: pytest.TempPathFactory, server: postgresql.Server, phone: Phone
) -> None:
    with (
        cluster(tmp_path_factory.mktemp("cluster"), ack_wait_s=2) as brokers,
        Several(tmp_path_factory.mktemp("clustered"), server.make("clustered"), brokers.url, phone) as town,
    ):
        for role in ("ingest", "ingest", "rules"):
            town.start(role)
        _up(town)
        with Load(brokers.url, seed=5).running() as load:
            until(lambda: any(node.springs for node in load.nodes), "something happens")
            brokers.nodes[0].kill()
            stored = town.count("events")
            until(lambda: town.count("events") > stored + 20, "events come by the others")
            town.shared()
        assert load.faults(town, 0) == []
        assert town.ended == []
