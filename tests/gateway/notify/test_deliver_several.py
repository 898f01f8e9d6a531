"""Several processes deliver from one outbox, on PostgreSQL: to one address one message at a time, in order, whoever sends it."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import Connection, insert, text

from gateway.leases import Worker
from gateway.notify import Channel, Delivered, Outcome, Retry
from gateway.notify.deliver import Deliverer
from gateway.notify.message import Message
from gateway.state import State, open_state, tables
from gateway.telemetry import Telemetry
from simulators.several import until
from tests import postgresql
from tests.gateway.town import NOW_US

pytestmark = pytest.mark.services


@pytest.fixture
def state(server: postgresql.Server, request: pytest.FixtureRequest) -> Iterator[State]:
    opened = open_state(server.make(request.node.name[:60]))
    yield opened
    opened.close()


class Provider:
    """Notes in which order it was given messages, and how many at once."""

    knows_repetition = True

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answers: list[Outcome] = []
        """What it answers first; after that it takes everything."""
        self.at_once, self.most = Counter[str](), 0
        self._lock = threading.Lock()

    def send(self, id_: str, _to: str, _said: Message) -> Outcome:
        contact = id_.partition("/")[0]
        with self._lock:
            self.sent.append(id_)
            self.at_once[contact] += 1
            self.most = max(self.most, self.at_once[contact])
            answer = self.answers.pop(0) if self.answers else Delivered()
        threading.Event().wait(0.002)  # a provider takes its time
        with self._lock:
            self.at_once[contact] -= 1
        return answer

    def close(self) -> None:
        """Nothing is open."""


def deliverer(state: State, channels: dict[str, Channel]) -> Deliverer:
    """Of a process of its own."""
    worker = Worker(state, "deliver")
    named = {f"contact.{name}": channel for name, channel in channels.items()}
    return Deliverer(state.guarded(worker.guard), named, Telemetry(), random.Random(1), lambda: NOW_US, worker=worker.id)


def queue(state: State, id_: str, contact: str, rank: int = 1, created_us: int = NOW_US) -> None:
    body = Message(id=id_, kind="test", title="試験", body="試験です").model_dump_json()
    with state.write() as connection:
        connection.execute(
            insert(tables.notifications),
            {"id": id_, "kind": "test", "contact": contact, "state": "queued", "severity_rank": rank, "body": body,
             "created_us": created_us, "due_us": created_us, "attempts": 0},
        )  # fmt: skip


def test_while_one_sends_to_an_address_another_that_found_a_message_before_does_not(state: State) -> None:
    phone = Provider()
    first, second = deliverer(state, {"phone": phone}), deliverer(state, {"phone": phone})
    queue(state, "warning", "phone")
    claimed, found = first._waiting._claimed, []

    def meanwhile(rows: list[object], worker: int) -> list[object]:
        """Between its look and its claim a more urgent one is queued, and the other process takes that."""
        queue(state, "critical", "phone", rank=0)
        found.extend(second._due())
        return claimed(rows, worker)

    first._waiting._claimed = meanwhile  # type: ignore[method-assign]
    assert [row.id for row in first._due()] == []
    assert [row.id for row in found] == ["critical"]
    first._waiting._claimed = claimed  # type: ignore[method-assign]
    assert first._due() == []
    for row in found:
        second._attempt(row)
    assert (first.step(), phone.sent) == (1, ["critical", "warning"])


def test_of_two_that_claim_at_the_same_moment_one_waits_for_the_other(state: State) -> None:
    phone = Provider()
    first, second = deliverer(state, {"phone": phone}), deliverer(state, {"phone": phone})
    queue(state, "warning", "phone")
    [warning] = first._due()
    with state.write() as connection:
        connection.execute(tables.notifications.update().values(claimed_by=None))
    found: list[object] = []
    write = first._state.write
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    claims = threading.Thread(target=lambda: found.extend(second._due()))

    @contextmanager
    def slow(*, own: bool = False) -> Iterator[Connection]:
        """Claimed, and not committed yet: now the other, which finds a more urgent one, claims too."""
        with write(own=own) as connection:
            yield connection
            queue(state, "critical", "phone", rank=0)
            claims.start()
            until(lambda: connection.scalar(text(waiting)) or not claims.is_alive(), "the other has claimed, or waits")

    first._state.write = slow  # type: ignore[method-assign]
    assert [row.id for row in first._waiting._claimed([warning], first._waiting._worker or 0)] == ["warning"]
    claims.join()
    assert found == []


def test_what_the_other_process_is_to_try_again_later_is_not_claimed_by_who_saw_it_before(state: State) -> None:
    phone = Provider()
    phone.answers = [Retry("busy", after_s=60)]
    first, second = deliverer(state, {"phone": phone}), deliverer(state, {"phone": phone})
    queue(state, "one", "phone")
    claimed = first._waiting._claimed

    def meanwhile(rows: list[object], worker: int) -> list[object]:
        second.step()
        return claimed(rows, worker)

    first._waiting._claimed = meanwhile  # type: ignore[method-assign]
    assert first._due() == []
    with state.read() as connection:
        assert connection.scalar(tables.notifications.select().with_only_columns(tables.notifications.c.claimed_by)) is None


@contextmanager
def at_work(*deliverers: Deliverer) -> Iterator[None]:
    with ExitStack() as stack:
        for one in deliverers:
            thread = threading.Thread(target=one.run)
            thread.start()
            stack.callback(thread.join, 20)
            stack.callback(one.stop)
        yield


def test_two_at_work_send_each_message_once_in_order_and_never_two_to_one_address_at_once(state: State) -> None:
    contacts = [f"hunter-{at}" for at in range(4)]
    provider = Provider()
    channels: dict[str, Channel] = dict.fromkeys(contacts, provider)
    deliverers = [deliverer(state, channels) for _ in range(2)]
    wanted = {contact: [f"{contact}/{at}" for at in range(25)] for contact in contacts}
    for at in range(25):
        for contact in contacts:
            queue(state, f"{contact}/{at}", contact, created_us=NOW_US - 1000 + at)
    with at_work(*deliverers):
        until(lambda: len(provider.sent) >= 100, "all of them are sent")
    assert {contact: [one for one in provider.sent if one.startswith(f"{contact}/")] for contact in contacts} == wanted
    assert provider.most == 1
