"""One provider is down, hangs, is rude or talks nonsense: others deliver as before, nothing is lost, all are told.

The deliverer and the channels are the real ones, over real sockets; only time is the test's. What comes in with a wrong
signature, or once more, changes no table.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from gateway.alerting.lifecycle import Alert, Move
from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.config import GatewayConfig
from gateway.contacts import people, proof
from gateway.contacts.address import AddressChannel
from gateway.contacts.book import Book
from gateway.deployments import Deployment, Deployments
from gateway.doors import open_doors
from gateway.feed import Feed
from gateway.media import MediaShelf
from gateway.moves import write_move
from gateway.notify.channels import ChannelsConfig, build_channels
from gateway.notify.deliver import Deliverer
from gateway.notify.message import Button, Message
from gateway.notify.push import open_vapid
from gateway.notify.queue import FAILOVER_S, queue
from gateway.notify.quota import Quota
from gateway.reach import Outside, open_reach
from gateway.state import open_state, tables
from gateway.store import SqliteStore
from gateway.telemetry import Telemetry
from simulators.escalation_storm import OURS, SID, VAPID_CONTACT, Providers
from simulators.line import user_id

NOW_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z, 3 June 06:12 in Japan
PUBLIC = "https://gateway.example.jp"
ZONE = ZoneInfo("Asia/Tokyo")
PERSONAL: tuple[AddressChannel, ...] = ("line", "push", "mail", "sms", "voice")
CHANNELS = (*PERSONAL, "webhook")
TO = {"line": user_id("田中"), "mail": "tanaka@example.jp", "sms": "+815000000012", "voice": "+815000000013"}
BACKUP = {"line": "backup@example.jp", "push": "b.push@example.jp", "sms": "b.sms@example.jp", "voice": "b.voice@example.jp"}
"""The second address of who is told over another channel first: a mail; of who gets mails it is a telephone."""


class Clock:
    """Stands until it is moved; without a time it is the machine's."""

    def __init__(self) -> None:
        self.us: int | None = NOW_US

    def __call__(self) -> int:
        return time.time_ns() // 1000 if self.us is None else self.us


class Post:
    """A deliverer with every channel, one contact a channel, and the providers."""

    def __init__(self, folder: Path, providers: Providers, clock: Clock, *, timeout_s: float = 2.0) -> None:
        self.now, self.providers = clock, providers
        self.state = open_state(f"sqlite:///{folder / 'state.db'}")
        self.book = Book({}, ["office"], ZONE)
        config, contacts = settings(folder, providers, timeout_s)
        channels = ChannelsConfig.model_validate(config)
        whole = GatewayConfig.model_validate(gateway_config(folder, config, contacts))
        self.built = build_channels(
            channels, whole.contact, whole.people, self.now,
            lambda line: Quota(self.state, "line", ZONE, line.reserve, lambda *_a, **_k: None),
        )  # fmt: skip
        assert self.built.vapid is not None
        key = self.built.vapid.public_key
        self.deliverer = Deliverer(self.state, self.built.by_key, Telemetry(), random.Random(1), self.now, proof.lost)
        self.contacts: dict[str, str] = {"webhook": "office"}
        providers.line._user(TO["line"]).follows = True
        with self.state.write() as connection:
            for channel in PERSONAL:
                id_ = self.contacts[channel] = people.add(connection, channel, "ja", [], "test", 0)
                to = providers.push.subscribe("tanaka", key) if channel == "push" else TO[channel]
                second: tuple[AddressChannel, str] = ("mail", BACKUP[channel]) if channel != "mail" else ("sms", "+815000000014")
                for by, address in ((channel, to), second):
                    proof.heard(connection, people.add_address(connection, id_, by, address, 0), 0)

    def later(self, seconds: float) -> None:
        """Time passes, and what is due in it is attempted when it is."""
        until_us = self.now() + int(seconds * 1e6)
        while self.now() < until_us:
            with self.state.read() as connection:
                due = select(func.min(tables.notifications.c.due_us)).where(tables.notifications.c.state == "queued")
                next_us = connection.scalar(due.where(tables.notifications.c.due_us > self.now()))
            self.now.us = min(next_us or until_us, self.now() + 20_000_000, until_us)
            self.deliverer.step()

    def tell(self, channel: str, number: int = 0, **more: Any) -> str:
        """A message to who is reached over this channel first."""
        id_ = f"{CHANNELS.index(channel)}{number:07}-0000-4000-8000-000000000000"
        message = Message(id=id_, severity="critical", title="わな作動", body="北尾根 3番", answer_url=f"{PUBLIC}/a/{id_}",
                          buttons=(Button(answer="going", label="行きます"),))  # fmt: skip
        with self.state.write() as connection:
            person = self.book.person(connection, self.contacts[channel], self.now())
            assert person is not None
            queue(connection, person, message, self.now(), **more)
        return id_

    def rows(self) -> dict[str, Any]:
        with self.state.read() as connection:
            return {row.id: row for row in connection.execute(select(tables.notifications))}

    def chain(self, id_: str) -> list[Any]:
        """The row, and those that stand in for it."""
        rows = self.rows()
        found = [rows[id_]]
        while after := [row for row in rows.values() if row.failed_over_from == found[-1].id]:
            found += after
        return found

    def close(self) -> None:
        for channel in self.built.by_key.values():
            channel.close()
        self.state.close()


def settings(folder: Path, providers: Providers, timeout_s: float = 2.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """`[channel]` and `[contact]` of a configuration that leads to the providers."""
    for name, secret in (
        ("secret", providers.line.secret),
        ("token", providers.line.token),
        ("twilio", providers.twilio.auth_token),
    ):
        (folder / name).write_text(secret)
        (folder / name).chmod(0o600)
    return {
        "line": {"channel_secret_file": folder / "secret", "access_token_file": folder / "token", "url": providers.line.url,
                 "timeout_s": timeout_s},
        "push": {"contact": VAPID_CONTACT, "allow_loopback": True, "timeout_s": timeout_s},
        "mail": {"host": providers.mail.host, "port": providers.mail.port, "tls": "none", "from": "satomori@town.example.jp",
                 "timeout_s": timeout_s},
        "twilio": {"account_sid": SID, "auth_token_file": folder / "twilio", "from": OURS, "url": providers.twilio.url,
                   "timeout_s": timeout_s},
    }, {"office": {"type": "webhook", "url": providers.office.url, "timeout_s": timeout_s}}  # fmt: skip


def gateway_config(folder: Path, channel: dict[str, Any], contact: dict[str, Any]) -> dict[str, Any]:
    return {
        "broker": {"url": "mqtt://127.0.0.1:1"},
        "state": {"url": f"sqlite:///{folder / 'state.db'}"},
        "store": {"type": "sqlite", "path": folder / "series.db"},
        "api": {"tokens_file": folder / "tokens"},
        "media": {"folder": folder / "media"},
        "people": {"public_url": PUBLIC, "folder": folder / "people", "town": "里山市", "office": "office"},
        "group": {"farmers": {"label": "わな番"}},
        "route": [{"to": "farmers", "needed": 1}],
        "channel": channel,
        "contact": contact,
    }


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def providers(clock: Clock) -> Iterator[Providers]:
    with Providers("http://127.0.0.1:9", clock) as opened:
        yield opened


@pytest.fixture
def post(tmp_path: Path, providers: Providers, clock: Clock) -> Iterator[Post]:
    made = Post(tmp_path, providers, clock)
    yield made
    made.close()


def provider(providers: Providers, channel: str) -> Any:
    return {"line": providers.line, "push": providers.push, "mail": providers.mail, "webhook": providers.office}.get(
        channel, providers.twilio
    )


def fail(providers: Providers, channel: str, how: str) -> None:
    """Has the provider behave as its real one does when it is down, out of order, asked too much, or is not itself."""
    one = provider(providers, channel)
    if how == "down":
        one.refuse()
    elif channel == "mail":
        said = {"500": ("data", "451 4.3.0 local error in processing"), "429": ("rcpt", "450 4.2.1 too many mails")}
        one.answer(*said.get(how, ("mail", "this is no answer of a mail server")))
    elif how == "garbage":
        one.garbage()
    elif how == "500":
        one.answer(500)
    elif channel == "line":
        one.rate_limited()
    elif channel == "webhook":
        one.answer(429)
    else:
        one.answer(429, "30")


def mend(providers: Providers, channel: str) -> None:
    one = provider(providers, channel)
    if channel == "line":
        one.well()
    elif channel == "mail":
        one.take()
    else:
        one.answer(200 if channel == "webhook" else 201)


@pytest.mark.parametrize("how", ["down", "500", "429", "garbage"])
@pytest.mark.parametrize("broken", CHANNELS)
def test_a_broken_channel_delays_no_other_loses_nothing_and_the_next_address_is_told_within_the_step(
    post: Post, broken: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    fail(post.providers, broken, how)
    told = {channel: post.tell(channel) for channel in CHANNELS}
    post.deliverer.step()
    rows = post.rows()
    # A call goes the same way as a short message: Twilio's. And who has mails as a second address needs none yet.
    same = {"sms", "voice"} if broken in ("sms", "voice") else {broken}
    assert {channel: (rows[id_].state, rows[id_].attempts) for channel, id_ in told.items() if channel not in same} == {
        channel: ("sent", 1) for channel in CHANNELS if channel not in same
    }

    post.later(FAILOVER_S["critical"])
    post.later(5 if broken != "webhook" else 0)
    first, *others = post.chain(told[broken])
    if broken == "webhook":
        assert first.state in ("queued", "sent")  # it has no other address
    else:
        last = others[-1] if others else first
        assert last.state == "sent"
        assert last.sent_us <= NOW_US + int((FAILOVER_S["critical"] + 5) * 1e6)
        assert how == "garbage" or (first.state, first.attempts > 1) == ("failed_over", True)
    downs = [record for record in caplog.records if "can't be reached" in record.message]
    assert len(downs) == (len(same) if how != "garbage" or downs else 0)

    mend(post.providers, broken)
    again = post.tell(broken, 1)
    post.later(400)
    assert post.chain(again)[-1].state == "sent"
    assert post.chain(told[broken])[-1].state == "sent"
    assert not [row for row in post.rows().values() if row.state in ("queued", "dead")]
    ups = [record for record in caplog.records if record.message == f"{_key(broken)} can be reached again"]
    assert len(ups) == len([one for one in downs if one.message.startswith(_key(broken))])
    received = post.providers.received()
    for row in post.rows().values():
        times = received[row.channel][row.id]
        if row.sent_us is not None:
            assert times >= 1
        if row.channel == "line" or not row.possibly_twice:
            assert times <= 1 or row.channel == "webhook"  # whose receiver tells it by its key


def _key(channel: str) -> str:
    return "contact.office" if channel == "webhook" else channel


@pytest.mark.parametrize("broken", ["push", "sms"])
def test_who_says_when_to_come_again_is_not_asked_before(post: Post, broken: str) -> None:
    fail(post.providers, broken, "429")
    id_ = post.tell(broken)
    post.deliverer.step()
    assert post.rows()[id_].due_us >= NOW_US + 30_000_000


@pytest.mark.parametrize("broken", CHANNELS)
def test_while_one_channel_hangs_the_others_deliver_and_the_next_address_is_told(
    tmp_path: Path, providers: Providers, clock: Clock, broken: str
) -> None:
    """In real time: the provider takes 30 s for an answer, and the channel has the patience."""
    clock.us = None
    post = Post(tmp_path, providers, clock, timeout_s=30.0)
    provider(providers, broken).slow(30.0)
    same = {"sms", "voice"} if broken in ("sms", "voice") else {broken}
    soon = {} if broken == "webhook" else {"failover_after_s": 0.3}
    hung = [post.tell(broken, number, **soon) for number in range(3)]
    others = [post.tell(channel, number) for number in range(5) for channel in CHANNELS if channel not in same]
    thread = threading.Thread(target=post.deliverer.run)
    thread.start()
    try:
        _until(lambda: all(post.rows()[id_].sent_us for id_ in others))
        if broken != "webhook":  # which has no other address
            _until(lambda: all(post.chain(id_)[-1].sent_us for id_ in hung))
        # All that while the first attempt was still waiting for its answer.
        assert [(post.rows()[id_].attempts, post.rows()[id_].sent_us) for id_ in hung] == [(0, None)] * 3
    finally:
        providers.__exit__()  # lets go of it
        post.deliverer.stop()
        thread.join(20)
        post.close()
    assert not thread.is_alive()


def _until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.05)


# --- What comes in ----------------------------------------------------------------------------------


class Door:
    """A gateway's web side as it is wired, a trap's page that asks somebody over each channel, and who answers."""

    def __init__(self, folder: Path, providers: Providers, clock: Clock) -> None:
        (folder / "tokens").write_text("desk operator,officer operator-token-for-tests\n")
        (folder / "tokens").chmod(0o600)
        config = GatewayConfig.model_validate(gateway_config(folder, *settings(folder, providers)))
        self.now, self.state, self.telemetry = clock, open_state(config.state.url), Telemetry()
        self.providers = providers
        deployments = Deployments([Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番")])
        nobody = Outside({}, lambda _topic, _payload: None, dict, lambda _kind, _body: None)
        self.reach = open_reach(config, self.state, deployments, self.telemetry, self.now, random.Random(1), nobody)
        key = open_vapid(folder / "people", VAPID_CONTACT).public_key
        with self.state.write() as connection:
            for channel in PERSONAL:
                id_ = people.add(connection, channel, "ja", ["farmers"], "test", 0)
                to = providers.push.subscribe("tanaka", key) if channel == "push" else TO[channel]
                proof.heard(connection, people.add_address(connection, id_, channel, to, 0), 0)
        providers.line._user(TO["line"]).follows = True
        media = MediaShelf(folder / "media", self.state, self.now, limit_bytes=1_000_000)
        doors = open_doors(config, self.state, self.reach, self.now)
        deps = Deps(
            state=self.state, store=MagicMock(SqliteStore), feed=Feed(), media=media, tokens=Tokens({}),
            telemetry=self.telemetry, now_us=self.now, health=dict,
            deployments=deployments, moved=self.reach.paging.moved, paging=self.reach.paging,
            answer_page=doors.answer_page, desk=self.reach.desk, inbox=self.reach.inbox, line_secret=self.reach.line_secret,
            push=doors.push, twilio=doors.twilio,
        )  # fmt: skip
        self.client = TestClient(create_app(deps), base_url=PUBLIC, raise_server_exceptions=False)
        providers.line.webhook = self._line
        providers.twilio._public_url, providers.twilio.gateway_url, providers.twilio._client = PUBLIC, None, self.client
        self.page = self._ask()

    def _line(self, body: bytes, headers: Any) -> int:
        return int(self.client.post("/hooks/line", content=body, headers=dict(headers)).status_code)

    def _ask(self) -> str:
        """The page is opened, and everybody of it is told."""
        alert = Alert("a-1", "sprung", "trap", "critical", "kitayama-03", "trap-11", "0:1", "firing", NOW_US, False,
                      "trap_sprung", "{}", fired_us=NOW_US)  # fmt: skip
        move = Move(alert, None, "trap_sprung", tell=True)
        with self.state.write() as connection:
            assert write_move(connection, move, self.now())
            self.reach.paging.moved(connection, move, self.now())
            page = str(connection.scalar(select(tables.pages.c.id)))
        self._deliver()
        return page

    def _deliver(self) -> None:
        self.reach.deliverer.step()
        for thread in threading.enumerate():
            if thread.name == "sim-twilio-ring":  # Twilio tells that a call has begun
                thread.join(10)

    def work(self) -> None:
        """What came in is worked on, and what follows is sent."""
        assert self.reach.inbox is not None
        self.reach.inbox.step(self.now())
        self.reach.paging.tick(self.now())
        self._deliver()

    def all(self) -> dict[str, Sequence[Any]]:
        """Every table."""
        with self.state.read() as connection:
            return {table.name: connection.execute(select(table)).all() for table in tables.metadata.sorted_tables}

    def link(self) -> str:
        """The one in the mail."""
        message = next(one for one in self.providers.mail.mails if one.to == TO["mail"])
        return next(line for line in message.text().splitlines() if "/a/" in line).strip()

    def close(self) -> None:
        self.reach.close()
        self.state.close()


@pytest.fixture
def door(tmp_path: Path, providers: Providers, clock: Clock) -> Iterator[Door]:
    made = Door(tmp_path, providers, clock)
    yield made
    made.close()


def test_everybody_was_asked_and_each_way_of_answering_is_open(door: Door) -> None:
    """What the refusals below are worth: the same, rightly signed, is taken."""
    assert door.providers.line.tap(TO["line"], "行きます") == 200
    assert door.client.post(door.link(), data={"answer": "cannot"}).status_code == 200
    call = door.providers.twilio.calls[0]
    door.providers.twilio.take(call)
    door.providers.twilio.press(call, "1")
    door.work()
    answers = {(row.via, row.answer) for row in door.all()["answers"]}
    assert answers == {("line", "going"), ("link", "cannot"), ("keypad", "going")}


def test_what_line_did_not_sign_is_refused_and_changes_no_table(door: Door) -> None:
    line = door.providers.line
    pressed = {"type": "postback", "postback": {"data": f"a=going&n={_told(door, 'line')}"}}
    event = line._event(TO["line"], pressed, replies=True)
    before = door.all()
    assert line.deliver([event], secret="another-secret") == 401
    for signature in ("", "AAAA", "é"):
        headers = {"X-Line-Signature": signature.encode()}
        assert door.client.post("/hooks/line", content=b'{"events": []}', headers=headers).status_code == 401
    door.work()
    assert door.all() == before


def test_a_webhook_that_line_repeats_changes_no_table(door: Door) -> None:
    line = door.providers.line
    assert line.tap(TO["line"], "行きます") == 200
    door.work()
    before = door.all()
    assert line.again() == 200
    door.work()
    assert door.all() == before


def test_what_twilio_did_not_sign_is_refused_and_changes_no_table(door: Door) -> None:
    twilio = door.providers.twilio
    call = twilio.calls[0]
    form = {**twilio._form(call), "Digits": "1"}
    keypad, status = (f"{PUBLIC}/hooks/twilio/{what}/{_told(door, 'voice')}" for what in ("keypad", "status"))
    # Signed for another call, another key, or by nobody.
    stolen = [twilio.signature(f"{keypad}0", form), twilio.signature(keypad, {**form, "Digits": "2"}), "", "AAAA"]
    before = door.all()
    for signature in stolen:
        assert twilio.post(keypad, form, signature=signature)[0] == 403
        assert twilio.post(status, {**form, "CallStatus": "failed"}, signature=signature)[0] == 403
    door.work()
    assert door.all() == before


def test_a_key_that_twilio_repeats_changes_no_table(door: Door) -> None:
    twilio = door.providers.twilio
    call = twilio.calls[0]
    twilio.take(call)
    where = call.waiting
    first = twilio.press(call, "1")
    door.work()
    before = door.all()
    call.waiting = where
    assert twilio.press(call, "1") == first
    call.waiting = where
    assert twilio.press(call, "2") == first  # also with another key: the call has been answered
    door.work()
    assert door.all() == before


def test_a_link_that_is_forged_cut_or_too_old_is_refused_and_changes_no_table(door: Door) -> None:
    link = door.link()
    token = link.rpartition("/")[2]
    forged = [token[:-1] + ("A" if token[-1] != "A" else "B"), token[:-4], token[4:], token + "A", "A" * len(token), "%00"]
    before = door.all()
    for one in forged:
        answer = door.client.post(f"{PUBLIC}/a/{one}", data={"answer": "going"})
        assert httpx.codes.is_client_error(answer.status_code)
        assert httpx.codes.is_client_error(door.client.get(f"{PUBLIC}/a/{one}").status_code)
    door.now.us = NOW_US + 25 * 3600 * 1_000_000
    assert door.client.post(link, data={"answer": "going"}).status_code == 410
    door.now.us = NOW_US
    assert door.client.post(link, data={"answer": "found"}).status_code == 422  # which this message does not offer
    assert door.all() == before


@pytest.mark.sqlite_only("compares tables in the order in which SQLite keeps them")
def test_an_answer_that_a_link_repeats_is_one_answer(door: Door) -> None:
    assert door.client.post(door.link(), data={"answer": "going"}).status_code == 200
    door.work()
    before = door.all()
    assert door.client.post(door.link(), data={"answer": "going"}).status_code == 200
    door.work()
    assert door.all() == before


def _told(door: Door, channel: str) -> str:
    return next(str(row.id) for row in door.all()["notifications"] if row.channel == channel)
