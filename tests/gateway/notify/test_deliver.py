"""What the delivery outbox promises: what is queued gets there or stays to be seen, under one id; nobody waits for others."""

import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from gateway.notify import Channel, Delivered, Outcome, Refused, Retry
from gateway.notify import deliver as deliver_module
from gateway.notify.deliver import ATTEMPTS, FIRST_RETRY_S, LONGEST_RETRY_S, Deliverer
from gateway.notify.message import Message
from gateway.notify.webhook import Webhook, WebhookConfig
from gateway.state import State, open_state, tables
from gateway.telemetry import Telemetry
from gateway.words import over
from simulators.phone import Phone, Received
from tests.gateway.town import MINUTE_US, NOW_US, SECOND_US, locked

ROOT = Path(__file__).parents[3]
MESSAGE = Message(id="n-1", title="【わな作動】", body="北尾根 3番。")


class Desk:
    """A deliverer over a real outbox; only its clock is the test's. Its channels are contacts of the configuration."""

    def __init__(self, state: State, channels: dict[str, Channel], seed: int = 1) -> None:
        self.state, self.now_us = state, NOW_US
        self.telemetry = Telemetry()
        named = {f"contact.{name}": channel for name, channel in channels.items()}
        self.deliverer = Deliverer(state, named, self.telemetry, random.Random(seed), lambda: self.now_us)

    def queue(
        self,
        id_: str,
        contact: str = "phone",
        created_us: int = NOW_US,
        *,
        rank: int = 0,
        due_us: int | None = None,
        late: bool = False,
    ) -> None:
        body = MESSAGE.model_copy(update={"id": id_, "late": late}).model_dump_json()
        row = {"id": id_, "alert": "a-1", "contact": contact, "state": "queued", "severity_rank": rank, "body": body,
               "created_us": created_us, "due_us": created_us if due_us is None else due_us, "attempts": 0}  # fmt: skip
        with self.state.write() as connection:
            connection.execute(insert(tables.notifications), row)

    def move_alert(self, to: str, fired_us: int) -> None:
        with self.state.write() as connection:
            connection.execute(update(tables.alerts).values(state=to, fired_us=fired_us))

    def rows(self) -> dict[str, dict[str, Any]]:
        with self.state.read() as connection:
            return {row["id"]: dict(row) for row in connection.execute(select(tables.notifications)).mappings()}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Its own thread runs while the block does."""
        thread = threading.Thread(target=self.deliverer.run)
        thread.start()
        try:
            yield
        finally:
            self.deliverer.stop()
            thread.join(20)
            assert not thread.is_alive()


class Scripted:
    """A channel that answers what the test says, and notes what it was given."""

    knows_repetition = True

    def __init__(self, answer: Callable[[str], Outcome]) -> None:
        self._answer = answer
        self.sent: list[str] = []

    def send(self, id_: str, _to: str, _message: Message) -> Outcome:
        self.sent.append(id_)
        return self._answer(id_)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    alert = {"id": "a-1", "rule": "r", "kind": "trap", "severity": "critical", "node": "n", "device": "d", "opening": "o",
             "state": "firing", "since_us": 0, "late": False, "summary": "s", "version": 1}  # fmt: skip
    with opened.write() as connection:
        connection.execute(insert(tables.alerts), alert)
    yield opened
    opened.close()


@pytest.fixture
def phone() -> Iterator[Phone]:
    with Phone() as opened:
        yield opened


@pytest.fixture
def webhook(phone: Phone) -> Iterator[Webhook]:
    opened = Webhook("phone", WebhookConfig.model_validate({"type": "webhook", "url": phone.url, "timeout_s": 5}))
    yield opened
    opened.close()


# ---- one attempt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "outcome"),
    [
        (lambda phone: phone.answer(204), Delivered()),
        (lambda phone: phone.answer(409), Delivered()),
        (lambda phone: phone.answer(500), Retry("answered 500")),
        (lambda phone: phone.answer(503), Retry("answered 503")),
        (lambda phone: phone.answer(429), Retry("answered 429")),
        (lambda phone: phone.answer(301), Retry("answered 301: check contact.phone.url")),
        (lambda phone: phone.answer(400), Retry("answered 400: check contact.phone.url")),
        (lambda phone: phone.answer(401), Retry("answered 401: check contact.phone.url")),
        (lambda phone: phone.answer(404), Retry("answered 404: check contact.phone.url")),
        (lambda phone: phone.answer(410), Refused("answered 410: check contact.phone.url")),
        (lambda phone: phone.answer(413), Refused("answered 413: check contact.phone.url")),
        (lambda phone: phone.answer(422), Refused("answered 422: check contact.phone.url")),
    ],
    ids=["204", "409 it had it", "500", "503", "429", "301", "400", "401", "404", "410", "413", "422"],
)
def test_what_an_answer_means(phone: Phone, webhook: Webhook, behave: Callable[[Phone], None], outcome: Outcome) -> None:
    behave(phone)
    assert webhook.send("n-1", "", MESSAGE) == outcome
    assert [one.key for one in phone.received] == ["n-1"]


@pytest.mark.parametrize("behave", [Phone.refuse, Phone.drop, Phone.garbage], ids=["nobody there", "no answer", "garbage"])
def test_what_is_no_answer_is_tried_again(phone: Phone, webhook: Webhook, behave: Callable[[Phone], None]) -> None:
    behave(phone)
    assert isinstance(webhook.send("n-1", "", MESSAGE), Retry)


def test_a_receiver_that_takes_too_long_is_tried_again(phone: Phone) -> None:
    phone.slow(30)
    config = WebhookConfig.model_validate({"type": "webhook", "url": phone.url, "timeout_s": 0.2})
    webhook = Webhook("phone", config)
    assert isinstance(webhook.send("n-1", "", MESSAGE), Retry)
    webhook.close()


# ---- the outbox -----------------------------------------------------------------------------------------


def test_a_delivered_notification_is_never_sent_again(state: State, phone: Phone, webhook: Webhook) -> None:
    desk = Desk(state, {"phone": webhook})
    desk.queue("n-1")
    assert (desk.deliverer.step(), desk.deliverer.step()) == (1, 0)
    row = desk.rows()["n-1"]
    assert (row["state"], row["sent_us"], row["attempts"], row["error"]) == ("sent", NOW_US, 1, None)
    assert phone.times() == {"n-1": 1}


def test_the_oldest_goes_first(state: State) -> None:
    channel = Scripted(lambda _: Delivered())
    desk = Desk(state, {"phone": channel})
    for number, age in [("n-1", 5), ("n-2", 9), ("n-3", 7)]:
        desk.queue(number, created_us=NOW_US - age)
    desk.deliverer.step()
    assert channel.sent == ["n-2", "n-3", "n-1"]


def test_the_most_severe_goes_first_however_much_waits_before_it(state: State) -> None:
    channel = Scripted(lambda _: Delivered())
    desk = Desk(state, {"phone": channel})
    for number, (rank, age) in enumerate([(2, 9), (1, 8), (0, 2), (2, 7), (0, 3), (1, 6)]):
        desk.queue(f"n-{number}", created_us=NOW_US - age, rank=rank)
    desk.deliverer.step()
    assert channel.sent == ["n-4", "n-2", "n-1", "n-5", "n-0", "n-3"]


def test_something_severe_that_waits_for_its_next_attempt_holds_nothing_up(state: State) -> None:
    channel = Scripted(lambda _: Delivered())
    desk = Desk(state, {"phone": channel})
    desk.queue("n-1", rank=0, due_us=NOW_US + SECOND_US)
    desk.queue("n-2", rank=2)
    desk.deliverer.step()
    assert channel.sent == ["n-2"]


@pytest.mark.parametrize("alert_state", ["firing", "acknowledged"])
def test_what_is_not_over_is_sent_as_it_was_written(state: State, phone: Phone, webhook: Webhook, alert_state: str) -> None:
    desk = Desk(state, {"phone": webhook})
    desk.queue("n-1")
    desk.move_alert(alert_state, NOW_US - 60 * MINUTE_US)
    desk.deliverer.step()
    [one] = phone.received
    assert one.message == MESSAGE.for_machines()


@pytest.mark.parametrize(
    ("age_us", "late_before", "late"),
    [(5 * MINUTE_US, False, False), (5 * MINUTE_US + 1, False, True), (MINUTE_US, True, True)],
    ids=["fired just now", "fired long ago", "late already"],
)
def test_what_is_critical_and_over_before_it_could_be_sent_says_so(
    state: State, phone: Phone, webhook: Webhook, age_us: int, late_before: bool, late: bool
) -> None:
    desk = Desk(state, {"phone": webhook})
    desk.queue("n-1", late=late_before)
    desk.move_alert("resolved", NOW_US - age_us)
    assert desk.deliverer.step() == 1
    [one] = phone.received
    assert {name: one.message[name] for name in ("id", "title", "body", "late", "over")} == {
        "id": "n-1",
        "title": "（解除済み）【わな作動】",
        "body": "北尾根 3番。この知らせはすでに終わっています。",
        "late": late,
        "over": True,
    }
    assert one.key == "n-1", "the same id: a receiver that had it already shows it once"
    assert desk.rows()["n-1"]["state"] == "sent"


def test_an_alert_that_ends_between_two_attempts_is_over_at_the_second(state: State, phone: Phone, webhook: Webhook) -> None:
    desk = Desk(state, {"phone": webhook})
    desk.queue("n-1")
    phone.answer(503)
    desk.deliverer.step()
    desk.move_alert("resolved", NOW_US)
    phone.answer(200)
    desk.now_us += MINUTE_US
    desk.deliverer.step()
    assert [(one.id, one.message.get("over", False)) for one in phone.received] == [("n-1", False), ("n-1", True)]


def test_the_sentence_that_says_so_stands_by_itself() -> None:
    assert over("【お知らせ】", "東口　battery_voltage 3.3") == (
        "（解除済み）【お知らせ】",
        "東口　battery_voltage 3.3。この知らせはすでに終わっています。",
    )


def test_retries_wait_longer_and_longer_each_with_its_own_jitter(state: State) -> None:
    pauses: list[list[float]] = []
    for seed in range(20):
        desk = Desk(state, {"phone": Scripted(lambda _: Retry("busy"))}, seed)
        desk.queue(f"n-{seed}")
        mine: list[float] = []
        for _ in range(12):
            assert desk.deliverer.step() == 1
            due_us = desk.rows()[f"n-{seed}"]["due_us"]
            mine.append((due_us - desk.now_us) / 1e6)
            desk.now_us = due_us
        pauses.append(mine)
        with state.write() as connection:
            connection.execute(tables.notifications.delete())
    for attempt in range(12):
        ceiling = min(FIRST_RETRY_S * 2**attempt, LONGEST_RETRY_S)
        column = [mine[attempt] for mine in pauses]
        assert 0 <= min(column) <= max(column) <= ceiling
        assert max(column) > ceiling * 0.6, "full jitter spreads them over the whole pause"
        assert min(column) < ceiling * 0.4


def test_who_asks_to_wait_is_waited_for(state: State) -> None:
    desk = Desk(state, {"phone": Scripted(lambda _: Retry("answered 429", 120))})
    desk.queue("n-1")
    desk.deliverer.step()
    assert desk.rows()["n-1"]["due_us"] == NOW_US + 120 * SECOND_US


def test_after_the_last_attempt_it_is_a_dead_letter_that_stays(state: State, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(state, {"phone": Scripted(lambda _: Retry("busy"))})
    desk.queue("n-1")
    with state.write() as connection:
        connection.execute(tables.notifications.update().values(attempts=ATTEMPTS - 1))
    desk.deliverer.step()
    row = desk.rows()["n-1"]
    assert (row["state"], row["error"], row["attempts"]) == ("dead", "busy", ATTEMPTS)
    assert "dead letter" in caplog.text
    assert desk.deliverer.step() == 0


def test_a_dead_letter_is_said_once_however_often_it_had_to_be_written(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the commit fails, or somebody else's mistake takes down the transaction that it went along in."""
    monkeypatch.setattr(deliver_module, "LOOK_S", 0.01)
    written: list[str] = []
    real = state.write

    @contextmanager
    def write() -> Iterator[Any]:
        with real() as connection:
            yield connection
            written.append(caplog.text)
            if len(written) == 1:
                raise locked()

    desk = Desk(state, {"phone": Scripted(lambda _: Refused("answered 410"))})
    desk.queue("n-1")
    monkeypatch.setattr(state, "write", write)
    desk.deliverer.step()
    assert desk.rows()["n-1"]["state"] == "dead"
    assert [("is a dead letter" in said) for said in written] == [False, False], "not before it is so"
    assert caplog.text.count("is a dead letter") == 1


def test_trying_goes_on_through_a_night() -> None:
    rng = random.Random(1)
    pauses = (rng.uniform(0, min(FIRST_RETRY_S * 2 ** min(n, 16), LONGEST_RETRY_S)) for n in range(ATTEMPTS - 1))
    assert sum(pauses) > 12 * 3600


@pytest.mark.parametrize("channels", [{}, {"phone": Scripted(lambda _: Refused("answered 410"))}], ids=["gone", "refused"])
def test_what_can_never_arrive_is_a_dead_letter_at_once(state: State, channels: dict[str, Channel]) -> None:
    desk = Desk(state, channels)
    desk.queue("n-1")
    desk.deliverer.step()
    assert desk.rows()["n-1"]["state"] == "dead"


def test_dead_letters_are_counted_for_who_watches_the_gateway(state: State) -> None:
    desk = Desk(state, {"phone": Scripted(lambda id_: Delivered() if id_ == "n-2" else Refused("answered 410"))})
    desk.deliverer.step()
    counted = [(desk.deliverer.dead, desk.telemetry.registry.get_sample_value("satomori_notifications_dead"))]
    for number in (1, 2, 3):
        desk.queue(f"n-{number}")
    desk.queue("n-4", due_us=NOW_US + SECOND_US)
    desk.deliverer.step()
    counted.append((desk.deliverer.dead, desk.telemetry.registry.get_sample_value("satomori_notifications_dead")))
    assert counted == [(0, 0), (2, 2)]
    assert desk.telemetry.registry.get_sample_value("satomori_notifications_waiting") == 1


def test_a_channel_that_raises_is_a_failed_attempt(state: State, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: str) -> Outcome:
        raise ValueError("a mistake in a channel")

    desk = Desk(state, {"phone": Scripted(fail)})
    desk.queue("n-1")
    assert desk.deliverer.step() == 1
    row = desk.rows()["n-1"]
    assert (row["state"], row["attempts"]) == ("queued", 1)
    assert "a mistake in a channel" in row["error"]


def test_an_unreachable_contact_is_said_once_and_its_return_once(state: State, caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[Outcome] = iter([Retry("away"), Retry("away"), Retry("away"), Delivered()])
    desk = Desk(state, {"phone": Scripted(lambda _: next(answers))})
    desk.queue("n-1")
    for _ in range(4):
        desk.deliverer.step()
        desk.now_us += 1000 * SECOND_US
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [("can't be reached" in one, "can be reached again" in one) for one in said] == [(True, False), (False, True)]


# ---- several at once, in real threads -------------------------------------------------------------------


def test_a_contact_that_hangs_delays_nobody_else(state: State) -> None:
    """With more messages of its own waiting than are ever looked at together."""
    release = threading.Event()

    def hang(_: str) -> Outcome:
        release.wait(20)
        return Delivered()

    with ExitStack() as stack:
        phones = {f"p-{n}": stack.enter_context(Phone()) for n in range(3)}
        hooks = {
            name: Webhook(name, WebhookConfig.model_validate({"type": "webhook", "url": one.url})) for name, one in phones.items()
        }
        desk = Desk(state, {"slow": Scripted(hang), **hooks})
        body = MESSAGE.model_dump_json()
        rows = [
            {"id": f"s-{n}", "alert": "a-1", "contact": "slow", "state": "queued", "body": body, "created_us": NOW_US - 9,
             "due_us": NOW_US - 9, "attempts": 0} for n in range(1500)
        ]  # fmt: skip
        with state.write() as connection:
            connection.execute(insert(tables.notifications), rows)
        for name in hooks:
            desk.queue(f"n-{name}", name)
        with desk.at_work():
            try:
                for name, one in phones.items():
                    assert one.wait_for(lambda received: len(received) == 1)[0].id == f"n-{name}"
            finally:
                desk.deliverer.stop()
                release.set()
        for hook in hooks.values():
            hook.close()


def test_nothing_is_sent_twice_however_often_the_bell_rings(state: State, phone: Phone, webhook: Webhook) -> None:
    desk = Desk(state, {"phone": webhook})
    for number in range(30):
        desk.queue(f"n-{number}")

    def all_there(received: tuple[Received, ...]) -> bool:
        desk.deliverer.ring()
        return len(received) >= 30

    with desk.at_work():
        phone.wait_for(all_there, 20)
    assert sorted(phone.times().values()) == [1] * 30


def test_what_an_attempt_is_writing_down_just_now_is_not_sent_again(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the outbox and the end of an attempt, interleaved by hand at the only place where it matters."""
    channel = Scripted(lambda _: Delivered())
    desk = Desk(state, {"phone": channel})
    desk.queue("n-1")
    [row] = desk.deliverer._due()
    real = state.read

    @contextmanager
    def read_and_then_the_attempt_ends() -> Iterator[Any]:
        with real() as connection:
            yield connection
        if desk.deliverer._busy:
            desk.deliverer._attempt(row)

    monkeypatch.setattr(state, "read", read_and_then_the_attempt_ends)
    assert desk.deliverer._due() == []
    assert channel.sent == ["n-1"]


def test_a_locked_database_repeats_the_writing_and_not_the_sending(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver_module, "LOOK_S", 0.01)
    written = threading.Event()
    tries: list[int] = []
    real = state.write

    @contextmanager
    def write() -> Iterator[Any]:
        tries.append(1)
        if len(tries) < 4:
            raise locked()
        with real() as connection:
            yield connection
        written.set()

    channel = Scripted(lambda _: Delivered())
    desk = Desk(state, {"phone": channel})
    desk.queue("n-1")
    monkeypatch.setattr(state, "write", write)
    with desk.at_work():
        assert written.wait(10)
    assert desk.rows()["n-1"]["state"] == "sent"
    assert channel.sent == ["n-1"]


def test_a_database_that_cannot_be_read_is_said_once_and_waited_for(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deliver_module, "LOOK_S", 0.01)
    sent = threading.Event()

    def send(_: str) -> Outcome:
        sent.set()
        return Delivered()

    looks: list[int] = []
    real = state.read

    @contextmanager
    def read() -> Iterator[Any]:
        looks.append(1)
        if len(looks) < 5:
            raise locked()
        with real() as connection:
            yield connection

    desk = Desk(state, {"phone": Scripted(send)})
    desk.queue("n-1")
    monkeypatch.setattr(state, "read", read)
    with desk.at_work():
        assert sent.wait(10)
    assert sum("deliveries wait" in record.message for record in caplog.records) == 1


@pytest.mark.sqlite_only("a process of its own opens the file")
def test_killed_between_the_attempt_and_its_row_the_same_id_is_attempted_again(
    state: State, tmp_path: Path, phone: Phone, webhook: Webhook
) -> None:
    desk = Desk(state, {"phone": webhook})
    desk.queue("n-1")
    phone.slow(60)
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.notify.delivery_child", f"sqlite:///{tmp_path / 'state.db'}", phone.url], cwd=ROOT
    )
    try:
        phone.wait_for(lambda received: len(received) == 1, 30)
    finally:
        child.kill()
        child.wait()
    assert desk.rows()["n-1"]["state"] == "queued"
    phone.answer(200)
    desk.deliverer.step()
    assert phone.times() == {"n-1": 2}, "the receiver tells the repetition by its id"
    assert {one.key for one in phone.received} == {"n-1"}
    assert desk.rows()["n-1"]["state"] == "sent"
