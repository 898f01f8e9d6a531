"""Who holds what, by PostgreSQL: a worker that others took for dead can't commit, and a live one is not taken for dead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import select, text

from gateway.ingest import Held
from gateway.leases import HEARD, RULES, Beating, Fenced, Worker, all_held, listening_since_us
from gateway.partitions import Partitions
from gateway.state import State, open_state
from gateway.state.tables import handed, ranges
from simulators.several import until
from tests import postgresql

pytestmark = pytest.mark.services

SETTLED = ("body", "declared")


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.running() as server:
        open_state(server.make("schema")).close()
        yield server


@pytest.fixture
def state(server: postgresql.Server) -> Iterator[State]:
    opened = open_state(server.make("leases", "schema"))
    yield opened
    opened.close()
    server.run('DROP DATABASE "leases"')


def run(state: State, sql: str) -> None:
    with state.write(own=True) as connection:
        connection.execute(text(sql))


def overdue(state: State, worker: Worker) -> None:
    run(state, f"UPDATE workers SET until_us = 0 WHERE id = {worker.id}")  # noqa: S608 - a number


def settled(state: State) -> list[tuple[str, ...]]:
    with state.read() as connection:
        return [tuple(row) for row in connection.execute(select(ranges).order_by(ranges.c.node))]


def waiting(state: State) -> int:
    """How many wait for a row that another has locked."""
    with state.read() as connection:
        asked = text("SELECT count(*) FROM pg_stat_activity WHERE datname = 'leases' AND wait_event_type = 'Lock'")
        return int(connection.execute(asked).scalar_one())


def test_two_that_ask_at_once_never_hold_the_same(state: State) -> None:
    one, other = Worker(state, "ingest"), Worker(state, "ingest")
    first, second = one.take(HEARD, 40), other.take(HEARD, 40)
    assert (len(first), len(second)) == (40, 24)
    assert {taken.name for taken in first}.isdisjoint(taken.name for taken in second)
    assert one.take([RULES], 1)
    assert not other.take([RULES], 1)


def test_who_was_taken_for_dead_commits_nothing_any_more_and_others_have_what_it_held(state: State) -> None:
    paused, other = Worker(state, "rules"), Worker(state, "rules")
    paused.take([RULES], 1)
    guarded = state.guarded(paused.guard)
    with guarded.write() as connection:
        connection.execute(text("INSERT INTO cursors (name, value) VALUES ('before', 1)"))
    overdue(state, paused)
    other.bury()
    with pytest.raises(Fenced), guarded.write() as connection:
        connection.execute(text("INSERT INTO cursors (name, value) VALUES ('after', 1)"))
    for act in (
        lambda: paused.beat({}),
        lambda: paused.take(HEARD, 1),
        lambda: paused.give(HEARD),
        lambda: paused.listens({"00": 1}),
    ):
        with pytest.raises(Fenced):
            act()
    assert other.take([RULES], 1)
    with state.read() as connection:
        assert connection.scalars(text("SELECT name FROM cursors")).all() == ["before"]


def test_nobody_is_buried_in_the_middle_of_a_commit_and_who_buries_does_not_wait_for_it(state: State) -> None:
    slow, other = Worker(state, "ingest"), Worker(state, "ingest")
    overdue(state, slow)
    with state.guarded(slow.guard).write() as connection:
        other.bury()
        connection.execute(text("INSERT INTO cursors (name, value) VALUES ('slow', 1)"))
    assert other.listens({}).fellows == 2
    other.bury()
    assert other.listens({}).fellows == 1


def test_what_is_written_in_one_statement_is_fenced_as_any_transaction_is(state: State) -> None:
    paused, other = Worker(state, "ingest"), Worker(state, "ingest")
    guarded = state.guarded(paused.guard, paused.alive)
    guarded.upsert(ranges, SETTLED, [("kita-01", "e", "1-5", ""), ("kita-02", "e", "1", "")])
    guarded.upsert(ranges, SETTLED, [("kita-01", "e", "1-9", "3")])
    guarded.insert(handed, ("body",), [("before",)])
    overdue(state, paused)
    other.bury()
    with pytest.raises(Fenced):
        guarded.upsert(ranges, SETTLED, [("kita-01", "e", "1-20", ""), ("kita-03", "e", "1", "")])
    with pytest.raises(Fenced):
        guarded.insert(handed, ("body",), [("after",)])
    assert settled(state) == [("kita-01", "e", "1-9", "3"), ("kita-02", "e", "1", "")]
    with state.read() as connection:
        assert connection.scalars(select(handed.c.body)).all() == ["before"]


def test_nobody_is_buried_while_its_one_statement_waits(state: State) -> None:
    slow, other = Worker(state, "ingest"), Worker(state, "ingest")
    guarded = state.guarded(slow.guard, slow.alive)
    guarded.upsert(ranges, SETTLED, [("kita-01", "e", "1", "")])
    with ThreadPoolExecutor(1) as pool:
        with state.write(own=True) as connection:
            connection.execute(text("SELECT * FROM ranges FOR UPDATE"))
            written = pool.submit(guarded.upsert, ranges, SETTLED, [("kita-01", "e", "1-2", "")])
            until(lambda: waiting(state) == 1, "the statement waits")
            overdue(state, slow)
            other.bury()
            assert other.listens({}).fellows == 2
        written.result()
    assert settled(state) == [("kita-01", "e", "1-2", "")]
    other.bury()
    assert other.listens({}).fellows == 1


def test_who_is_taken_for_dead_loses_its_connections_and_what_it_had_locked(server: postgresql.Server, state: State) -> None:
    worker, other = Worker(state, "ingest"), Worker(state, "ingest")
    run(state, f"UPDATE workers SET until_us = 0, name = 'paused' WHERE id = {worker.id}")  # noqa: S608 - a number
    with closing(psycopg.connect(server.url("leases"), application_name="paused")) as paused:
        paused.execute("SELECT pg_advisory_xact_lock(5462531), * FROM workers FOR KEY SHARE")

        def is_buried() -> bool:
            other.bury()
            return other.listens({}).fellows == 1

        until(is_buried, "it is buried")
        with state.write() as connection:  # the town's lock is free
            connection.execute(text("INSERT INTO cursors (name, value) VALUES ('after', 1)"))
        with pytest.raises(psycopg.OperationalError):
            paused.execute("SELECT 1")


def test_a_transaction_that_its_process_is_paused_in_is_ended_by_the_database(state: State) -> None:
    worker = Worker(state, "ingest")
    for write in (state.write(), state.guarded(worker.guard).write(own=True)):
        with write as connection:
            assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "5s"
    with state.read() as connection:  # an export may take its time
        assert connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"


def test_after_an_outage_nobody_buries_before_the_others_could_say_that_they_work(state: State) -> None:
    worker, other = Worker(state, "ingest", lease_s=3), Worker(state, "ingest")
    overdue(state, other)
    fellows: list[int] = []
    beating = Beating(worker, fenced=pytest.fail)

    def faults() -> dict[str, str]:
        fellows.append(worker.listens({}).fellows)
        if fellows[-1] == 1:
            beating.stop()
        return {}

    beating.faults = faults
    beating.run()
    assert fellows == [2, 2, 2, 2, 1]


def test_it_ends_when_others_took_it_for_dead(state: State) -> None:
    worker, other = Worker(state, "ingest"), Worker(state, "ingest")
    overdue(state, worker)
    other.bury()
    said: list[bool] = []
    Beating(worker, lambda: said.append(True)).run()
    assert said == [True]


NOW_US = 1_800_000_000_000_000


def test_each_takes_its_share_and_who_has_more_lets_go_of_the_rest(state: State) -> None:
    first = Worker(state, "ingest")
    one = Partitions(first, lambda: NOW_US, lambda: False)
    new, over = one.look({})
    assert ([held.partition for held in new], over) == (list(range(64)), [])
    assert {held.heard_us for held in new} == {None}
    all_of_them = dict.fromkeys(range(64), NOW_US)
    other = Partitions(Worker(state, "ingest"), lambda: NOW_US, lambda: False)
    assert other.look({}) == ([], [])
    assert one.look(all_of_them) == ([], list(range(32, 64)))
    assert other.look({}) == ([], [])  # nothing is free before the other has really let go
    one.let_go(list(range(32, 64)))
    assert [held.partition for held in other.look({})[0]] == list(range(32, 64))
    first.leave()
    assert [held.partition for held in other.look(dict.fromkeys(range(32, 64), NOW_US))[0]] == list(range(32))


def test_what_it_took_without_hearing_of_it_is_its_or_is_free_again(state: State) -> None:
    worker = Worker(state, "ingest")
    one = Partitions(worker, lambda: NOW_US, lambda: False)
    one.look({})  # the connection was lost with the answer
    heard = dict.fromkeys((held.partition for held in one.look({})[0]), NOW_US)
    assert len(heard) == 64
    other = Worker(state, "ingest")
    assert one.look(dict.fromkeys(range(32), NOW_US)) == ([], [])
    assert len(other.take(HEARD, 64)) == 32
    assert [len(worker.take([RULES], 1)) for _ in range(2)] == [1, 1]
    assert not other.take([RULES], 1)


def test_who_was_started_in_a_dead_ones_place_under_its_name_keeps_its_connections(
    server: postgresql.Server, state: State
) -> None:
    dead, new, other = Worker(state, "ingest"), Worker(state, "ingest"), Worker(state, "ingest")
    run(state, f"UPDATE workers SET name = 'gateway-1' WHERE id IN ({dead.id}, {new.id})")  # noqa: S608 - numbers
    run(state, f"UPDATE workers SET until_us = 0 WHERE id = {dead.id}")  # noqa: S608 - a number
    with closing(psycopg.connect(server.url("leases"), application_name="gateway-1")) as connection:
        other.bury()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert other.listens({}).fellows == 2


def test_a_short_move_is_no_break_and_a_long_one_is(state: State) -> None:
    first = Worker(state, "ingest")
    one = Partitions(first, lambda: NOW_US, lambda: False)
    one.look({})
    one.look(dict.fromkeys(range(64), NOW_US - 3_600_000_000))
    assert listening_since_us(state) == NOW_US - 3_600_000_000
    run(state, "UPDATE leases SET heard_us = heard_us - 61000000 WHERE name = '07'")
    first.leave()
    assert listening_since_us(state) is None
    new, _ = Partitions(Worker(state, "ingest"), lambda: NOW_US, lambda: False).look({})
    broken = [held for held in new if held.since_us is None]
    assert [held.partition for held in broken] == [7]
    assert isinstance(broken[0], Held)
    assert broken[0].heard_us is not None
    assert NOW_US - 65_000_000 < broken[0].heard_us <= NOW_US - 61_000_000
    assert {held.since_us for held in new} == {None, NOW_US - 3_600_000_000}


def test_while_nodes_were_asked_to_hold_readings_back_nothing_counts_as_heard(state: State) -> None:
    deaf, now_us = [True], [NOW_US]
    partitions = Partitions(Worker(state, "ingest"), lambda: now_us[0], lambda: deaf[0])
    partitions.look({})
    partitions.look(dict.fromkeys(range(64), NOW_US - 3_600_000_000))
    assert listening_since_us(state) is None
    deaf[0] = False
    now_us[0] += 1_000_000
    partitions.look(dict.fromkeys(range(64), NOW_US - 3_600_000_000))
    assert listening_since_us(state) == NOW_US


def test_a_partition_that_is_held_and_deaf_is_the_brokers_or_the_stores_fault_and_not_its_holders(state: State) -> None:
    worker = Worker(state, "ingest")
    worker.take(HEARD[1:], 64)
    assert not all_held(state)
    worker.take(HEARD, 64)
    worker.listens(dict.fromkeys(HEARD, None))
    assert listening_since_us(state) is None
    assert all_held(state)
