"""What one process tells the others: pieces that a NOTIFY can carry, and `again` wherever something may have been missed."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from gateway import news
from gateway.news import CHANNEL, FEED, MOST_BYTES, RESYNC, WAITING, News, pieces
from gateway.state import State, open_state
from simulators.several import until
from tests import postgresql
from tests.gateway.town import locked
from tests.wire import Wire, in_thread

pytestmark = pytest.mark.services


@pytest.mark.parametrize("number", [1, 2, 7, 500])
def test_what_is_long_goes_in_pieces_of_which_each_fits_and_none_is_lost(number: int) -> None:
    rows = [{"node": f"里山-{at}", "value": at, "why": "x" * 50} for at in range(number)]
    said = list(pieces("feed:latest", {"rows": rows, "more": True}))
    assert all(len(one.encode()) <= MOST_BYTES for one in said)
    assert [row for one in said for row in json.loads(one)[1]["rows"]] == rows
    assert {json.loads(one)[0] for one in said} == {"feed:latest"}


@pytest.mark.parametrize("body", [{"rows": ["x" * 9000]}, {"text": "里" * 3000}, "x" * 8000])
def test_what_fits_no_message_is_told_as_look_for_yourself(body: Any) -> None:
    assert [json.loads(one) for one in pieces("feed:event", body)] == [[RESYNC, None]]


@pytest.fixture(scope="module")
def state(server: postgresql.Server) -> Iterator[State]:
    opened = open_state(server.make("news"))
    yield opened
    opened.close()


class Ear:
    """What one process hears."""

    def __init__(self, state: State, *channels: str) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.again = 0
        self.fails: Exception | None = None
        self.news = News(state, lambda kind, body: self.heard.append((kind, body)), self._again, channels)

    def _again(self) -> None:
        self.again += 1
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails

    @contextmanager
    def listening(self) -> Iterator["Ear"]:
        hearing, saying = threads = [threading.Thread(target=run) for run in (self.news.run_hearing, self.news.run_saying)]
        hearing.start()
        try:
            until(lambda: self.again, "it listens")
            saying.start()  # only now: what is said before somebody listens is heard by nobody
            yield self
        finally:
            self.news.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


def test_everybody_hears_what_is_said_and_only_who_watches_hears_the_feed(state: State) -> None:
    with Ear(state, CHANNEL, FEED).listening() as api, Ear(state, CHANNEL).listening() as ingest:
        api.news.say("feed:event", {"node": "kitayama-03"}, FEED)
        ingest.news.say("ring:judge")
        until(lambda: len(api.heard) == 2 and ingest.heard, "it is heard")
        assert sorted(api.heard, key=str) == [("feed:event", {"node": "kitayama-03"}), ("ring:judge", None)]
        assert ingest.heard == [("ring:judge", None)]


def test_who_says_too_much_at_once_or_lost_the_connection_has_the_others_look_for_themselves(state: State) -> None:
    ear = Ear(state, CHANNEL)
    for at in range(WAITING + 1):
        ear.news.say("ring:judge", at)
    with ear.listening():
        until(lambda: ear.again == 2, "it was told that something is missing")
        with state.write(own=True) as connection:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        until(lambda: ear.again == 3, "it listens again")
        ear.heard.clear()

        def is_heard() -> bool:
            ear.news.say("ring:judge")  # again: what went over the connection that was lost is told as: look for yourself
            return bool(ear.heard)

        until(is_heard, "it is heard")


def test_who_can_not_look_for_himself_just_then_looks_again(state: State) -> None:
    ear = Ear(state, CHANNEL)
    ear.fails = locked()  # the server was restarted, and a connection of before it was used
    with ear.listening():
        until(lambda: ear.again == 2, "it looked again")
        ear.news.say("ring:judge")
        until(lambda: ear.heard, "it is heard")


def test_what_is_said_comes_as_it_was_said_whatever_the_letters(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    said = {"node": "kitayama-03", "why": "𠮷野の🐗が「わな」に\n" + "\"\\' \u2028"}
    with Ear(state, CHANNEL).listening() as ear:
        ear.news.say("publish:x", said)
        until(lambda: ear.heard, "it is heard")
        assert ear.heard == [("publish:x", said)]


def test_a_connection_that_has_gone_silent_is_noticed_and_made_anew(
    server: postgresql.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told: a proxy in between goes on answering for a machine that is not there any more."""
    monkeypatch.setattr(news, "ALIVE_S", 0.2)
    monkeypatch.setattr(news, "SILENT_S", 2.0)
    with (
        in_thread(Wire(server.port)) as wire,
        closing(open_state(server.make("silenced").replace(f":{server.port}/", f":{wire.near_port}/"))) as state,
        Ear(state, CHANNEL).listening() as ear,
    ):
        ear.news.say("ring:judge")
        until(lambda: ear.heard, "it is heard")
        wire.silence()
        until(lambda: "can't be heard" in caplog.text, "it is noticed")
        wire.mend()
        until(lambda: ear.again > 1, "it listens again")
        ear.heard.clear()

        def is_heard() -> bool:
            ear.news.say("ring:judge")
            return bool(ear.heard)

        until(is_heard, "it is heard")


def test_who_has_nothing_to_say_hears_that_it_is_there_itself_and_tells_nobody_of_it(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "ALIVE_S", 0.05)
    monkeypatch.setattr(news, "SILENT_S", 1.0)
    heard: list[str] = []
    with Ear(state, CHANNEL).listening() as ear:
        was_heard = ear.news._heard

        def note(payload: str) -> None:
            heard.append(payload)
            was_heard(payload)

        monkeypatch.setattr(ear.news, "_heard", note)
        until(lambda: len(heard) > 40, "it has heard itself for longer than a connection may be silent")
        assert (ear.heard, ear.again) == ([], 1)


def test_each_connection_notices_a_machine_that_is_gone(state: State) -> None:
    """By the network's own means: none of ours is lost in it while it answers."""
    with state.listening([CHANNEL]) as listening, state.read() as connection:
        for one in (listening, connection.connection.driver_connection):
            assert one is not None
            said = one.info.get_parameters()
            unanswered_s = int(said["keepalives_idle"]) + int(said["keepalives_interval"]) * int(said["keepalives_count"])
            assert unanswered_s <= 60
            assert int(said["tcp_user_timeout"]) <= 60_000
