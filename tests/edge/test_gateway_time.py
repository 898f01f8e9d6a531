"""A node that nothing else gives the time goes by the gateway's: asked over real TLS from the real node listener."""

import asyncio
import logging
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge import status
from edge.clock import Clock
from edge.contract.events import ClockSynced
from edge.gateway_time import ASK_S, GOOD_FOR_US, LONGEST_TRIP_US, GatewayTime
from edge.identity import FOLDER
from edge.records import Happened
from edge.timekeeper import Timekeeper
from simulators.clock import VirtualClock
from tests.edge.authority import Authority
from tests.edge.test_edge_cli import ROOT, written
from tests.gateway.nodes.boxes import Town, at_work, town

YEAR_US = 365 * 86_400 * 1_000_000
UPTIME_US = 90_000_000
TRUE_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z
IMAGE_US = TRUE_US - YEAR_US // 2
HANDSHAKE_US = 3_000_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Town, str]]:
    with town(tmp_path_factory.mktemp("town")) as made, at_work(made) as port:
        yield made, f"https://127.0.0.1:{port}"


class Node:
    """A node whose own clock is a year behind, and that no NTP reaches until the test says so."""

    def __init__(self, gateway: tuple[Town, str], *, clock: Clock | None = None, ca_file: Path | None = None) -> None:
        self.town, url = gateway
        self.clock = VirtualClock(self.town.now_us - YEAR_US, UPTIME_US)
        self.ntp = False
        self.time = GatewayTime(
            clock or self.clock, url, ca_file or self.town.folder / "ca.pem", random.Random(1), lambda: self.ntp, image_us=0
        )


def test_without_ntp_it_is_the_gateways_time(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    assert not node.time.disciplined()
    assert asyncio.run(node.time.ask())
    assert node.time.now().utc_us == node.town.now_us
    assert node.time.disciplined()


def test_it_goes_on_by_the_time_since_boot_and_is_believed_for_nine_hours(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    asyncio.run(node.time.ask())
    asyncio.run(node.clock.advance(GOOD_FOR_US / 1e6 - 1))
    assert node.time.now().utc_us == node.town.now_us + GOOD_FOR_US - 1_000_000
    assert node.time.disciplined()
    asyncio.run(node.clock.advance(1))
    assert not node.time.disciplined()


def test_ntp_takes_over_as_soon_as_it_is_there(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    asyncio.run(node.time.ask())
    node.ntp = True
    node.clock.step_utc(YEAR_US + 5_000_000)
    assert node.time.disciplined()
    assert node.time.now().utc_us == node.town.now_us + 5_000_000


def test_a_gateway_of_another_authority_tells_no_time(
    gateway: tuple[Town, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with town(tmp_path) as other:
        node = Node(gateway, ca_file=other.folder / "ca.pem")
        with caplog.at_level(logging.WARNING):
            assert not asyncio.run(node.time.ask())
            assert not asyncio.run(node.time.ask())
    assert not node.time.disciplined()
    assert caplog.text.count("the gateway can't be asked") == 1


@contextmanager
def answering(folder: Path, body: bytes | None = None, *, ways_us: Sequence[int] = (0,)) -> Iterator[GatewayTime]:
    """A node's questions to a gateway that says the true time, or `body`: after a handshake of three seconds each time, and with
    the answer so long on its way."""
    authority = Authority()
    certificate, key = authority.write_pair(folder, "gateway")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    clock = VirtualClock(TRUE_US - YEAR_US, UPTIME_US)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve() -> None:
            for way_us in ways_us:
                connection, _ = listening.accept()
                connection.settimeout(10)
                clock._move_to(clock.now().mono_us + HANDSHAKE_US)
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(4096)
                    said = b'{"now_us": %d}' % (clock.now().utc_us + YEAR_US) if body is None else body
                    clock._move_to(clock.now().mono_us + way_us)
                    secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        yield GatewayTime(clock, url, authority.write(folder), random.Random(1), lambda: False, image_us=IMAGE_US)
        thread.join(10)


def off_us(node: GatewayTime) -> int:
    return node.now().utc_us - node._clock.now().utc_us - YEAR_US


def test_the_handshake_is_no_part_of_the_answers_way(tmp_path: Path) -> None:
    """Over a thin link it takes longer than the answer; the gateway looks at its clock only after it."""
    with answering(tmp_path) as node:
        assert asyncio.run(node.ask())
    assert off_us(node) == 0


def test_an_answer_that_fits_what_is_known_moves_nothing(tmp_path: Path) -> None:
    """Over a thin link each answer is wrong by its own way: the clock must not step each hour by that."""
    with answering(tmp_path, ways_us=(0, 3_000_000, LONGEST_TRIP_US)) as node:
        for _ in range(3):
            assert asyncio.run(node.ask())
            assert off_us(node) == 0
            asyncio.run(node._clock.advance(ASK_S))  # type: ignore[attr-defined]  # a VirtualClock


def test_one_that_contradicts_it_is_gone_by(tmp_path: Path) -> None:
    with answering(tmp_path, ways_us=(3_000_000, 0)) as node:
        assert asyncio.run(node.ask())
        assert off_us(node) == -1_500_000  # in the middle of what can be
        assert asyncio.run(node.ask())
        assert off_us(node) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 999, b"", b"{}", b'{"now_us": null}', b'{"now_us": true}', b'{"now_us": 1e15}', b'{"now_us": -1}',
        b'{"now_us": %d}' % 10**17, b'{"now_us": %d}' % (IMAGE_US - 1),
    ],
    ids=lambda body: body[:30].decode(),
)  # fmt: skip
def test_an_answer_that_can_be_no_time_is_not_gone_by(body: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even one of before this software was made: that gateway's own clock is wrong."""
    with answering(tmp_path, body) as asked:
        assert not asyncio.run(asked.ask())
    assert not asked.disciplined()
    assert len(caplog.records) == 1


class Slow(VirtualClock):
    """Each look at it takes three seconds longer than the last: as if the answer had been on its way."""

    def now(self):  # type: ignore[no-untyped-def]  # as VirtualClock's
        self._move_to(self._mono_us + LONGEST_TRIP_US + 1)
        return super().now()


def test_an_answer_that_was_long_on_its_way_is_not_gone_by(gateway: tuple[Town, str]) -> None:
    node = Node(gateway, clock=Slow(gateway[0].now_us - YEAR_US, UPTIME_US))
    assert not asyncio.run(node.time.ask())


def test_it_is_asked_at_once_and_each_hour(gateway: tuple[Town, str]) -> None:
    node = Node(gateway)
    asked: list[int] = []
    answered = threading.Semaphore(0)

    async def ask() -> bool:
        asked.append(node.clock.now().mono_us - UPTIME_US)
        answered.release()
        return True

    async def play() -> None:
        node.time.ask = ask  # type: ignore[method-assign]
        task = asyncio.ensure_future(node.time.run())
        await node.clock.advance(3 * ASK_S)
        task.cancel()

    asyncio.run(play())
    assert asked[0] == 0
    assert 2 <= len(asked) - 1 <= 4


def test_the_timekeeper_tells_that_the_clock_became_right(gateway: tuple[Town, str], tmp_path: Path) -> None:
    """So that what was recorded before gets its time, as when NTP arrives."""
    node = Node(gateway)

    async def play() -> tuple[str, ClockSynced, str]:
        keeper = Timekeeper(tmp_path, "b" * 16, node.time, node.time.disciplined, image_us=0)
        before = keeper.clock_state()
        await node.time.ask()
        records = keeper.records()
        said = await anext(records)
        assert isinstance(said, Happened)
        assert isinstance(said.event, ClockSynced)
        waiting = asyncio.ensure_future(anext(records))
        await node.clock.advance(1)
        waiting.cancel()
        return before, said.event, keeper.clock_state()

    before, said, after = asyncio.run(play())
    assert (before, after) == ("unsync", "sync")
    assert said.zero == node.town.now_us - UPTIME_US
    assert said.stepped == YEAR_US


AGENT = """
import sys, time
import edge.clock
real = time.time_ns
time.time_ns = lambda: real() - 400 * 86_400 * 10**9
edge.clock.kernel_is_disciplined = lambda: False
import edge.timekeeper
edge.timekeeper.LOOK_S = 0.1
from edge.cli import main
sys.exit(main())
"""
"""satomori-edge on a machine whose clock is more than a year behind, out of NTP's reach."""


def test_a_whole_agent_that_no_ntp_reaches_comes_to_the_gateways_time(gateway: tuple[Town, str], tmp_path: Path) -> None:
    made, url = gateway
    (tmp_path / "keys.json").write_text("[]")
    config = written(
        tmp_path, device={"one": {"type": "node_health"}}, remote={"keys_file": str(tmp_path / "keys.json"), "url": url}
    )
    state = tmp_path / "state"
    (state / FOLDER).mkdir(parents=True)
    shutil.copy(made.folder / "ca.pem", state / FOLDER / "ca.pem")
    made.now_us, before_us = time.time_ns() // 1000 + YEAR_US, made.now_us
    try:
        with subprocess.Popen([sys.executable, "-c", AGENT, "run", str(config)], stderr=subprocess.PIPE, cwd=ROOT) as child:
            try:
                told: dict[str, Any] | None = None
                ends = time.monotonic() + 20
                while time.monotonic() < ends and (told is None or told["clock"] != "sync"):
                    told = status.ask(state)
                assert told is not None
                assert told["clock"] == "sync"
                assert 0 <= told["now_us"] - made.now_us < 30_000_000
            finally:
                child.terminate()
                _, log = child.communicate(timeout=20)
        assert b"nothing gives this node the time: it goes by the gateway's" in log
    finally:
        made.now_us = before_us
