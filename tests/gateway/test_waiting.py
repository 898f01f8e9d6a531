"""Who waits for many sessions hears each that something came for, and no other; whatever number its socket has."""

import os
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.session import Session, Waiting

SESSIONS = 5


class Client:
    """Of gateway.buffered.BufferedClient, what is looked at."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.ahead = self.behind = self.is_gone = False

    def socket(self) -> socket.socket | None:
        return None if self.is_gone else self.near

    def close(self) -> None:
        self.near.close()
        self.far.close()
        self.is_gone = True


class Kept:
    """Of gateway.session.Session, what is looked at."""

    def __init__(self, client: Client | None = None) -> None:
        self.client = client


class Sessions(RuleBasedStateMachine):
    """Some sessions, each with a connection, without one, or with one that has just gone."""

    def __init__(self) -> None:
        super().__init__()
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.waiting = Waiting(self.bell)
        self.sessions: list[Any] = [Kept() for _ in range(SESSIONS)]

    which = st.integers(0, SESSIONS - 1)

    def teardown(self) -> None:
        for session in self.sessions:
            if session.client is not None:
                session.client.close()
        os.close(self.bell)

    def look(self, session: Any) -> None:
        self.waiting.look(cast("Session", session))

    @rule(which=which)
    def connects(self, which: int) -> None:
        session = self.sessions[which]
        if session.client is not None:
            session.client.close()
        session.client = Client()
        self.look(session)

    @rule(which=which)
    def ends(self, which: int) -> None:
        session = self.sessions[which]
        if session.client is not None:
            session.client.close()
            session.client = None
        self.look(session)

    @rule(which=which)
    def its_socket_goes(self, which: int) -> None:
        session = self.sessions[which]
        if session.client is not None:
            session.client.close()
            self.look(session)

    @rule(which=which, is_looked_at=st.booleans())
    def is_let_go_of(self, which: int, *, is_looked_at: bool) -> None:
        session = self.sessions[which]
        self.waiting.forget(cast("Session", session))
        if session.client is not None:
            session.client.close()
            session.client = None
        if is_looked_at:
            self.look(session)

    @rule(which=which)
    def something_comes(self, which: int) -> None:
        if (client := self.sessions[which].client) is not None and not client.is_gone:
            client.far.send(b"x")

    @rule(which=which)
    def is_read(self, which: int) -> None:
        if (client := self.sessions[which].client) is not None and not client.is_gone:
            client.near.recv(10_000) if readable(client) else None
            self.look(self.sessions[which])

    @rule(which=which, ahead=st.booleans(), behind=st.booleans())
    def has_work(self, which: int, *, ahead: bool, behind: bool) -> None:
        if (client := self.sessions[which].client) is not None:
            client.ahead, client.behind = ahead, behind
            self.look(self.sessions[which])

    @rule()
    def the_bell_rings(self) -> None:
        os.eventfd_write(self.bell, 1)

    @invariant()
    def those_are_found_that_have_something_to_do(self) -> None:
        expected = {}
        for session in self.sessions:
            if (client := session.client) is None:
                continue
            is_readable = client.is_gone or client.ahead or readable(client)
            is_writable = client.behind and not client.is_gone
            if is_readable or is_writable:
                expected[session] = (is_readable, is_writable)
        assert {session: (reads, writes) for session, reads, writes in self.waiting.wait(0)} == expected


def readable(client: Client) -> bool:
    try:
        return bool(client.near.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def bell() -> Iterator[int]:
    number = os.eventfd(0, os.EFD_NONBLOCK)
    yield number
    os.close(number)


def test_the_bell_ends_the_waiting(bell: int) -> None:
    waiting = Waiting(bell)
    os.eventfd_write(bell, 1)
    assert waiting.wait(60) == []


def test_who_has_work_that_needs_no_waiting_is_not_waited_for(bell: int) -> None:
    waiting, client = Waiting(bell), Client()
    client.ahead = True
    session = cast("Session", Kept(client))
    waiting.look(session)
    assert waiting.wait(60) == [(session, True, False)]
    client.close()


def test_a_number_that_another_had_meanwhile_is_waited_for_again(bell: int) -> None:
    waiting, first, second = Waiting(bell), Kept(Client()), Kept()
    assert first.client is not None
    number = first.client.near.fileno()
    waiting.look(cast("Session", first))
    first.client.close()
    second.client = Client()
    assert second.client.near.fileno() == number
    waiting.look(cast("Session", second))
    second.client.close()
    second.client = None
    waiting.look(cast("Session", second))
    first.client = Client()
    assert first.client.near.fileno() == number
    waiting.look(cast("Session", first))
    first.client.far.send(b"x")
    assert waiting.wait(0) == [(cast("Session", first), True, False)]
    first.client.close()
