"""A message to a person: over which address it goes, what stands in when that fails, and what a crash may leave behind."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from gateway.contacts.person import Address, Person
from gateway.notify import Delivered, Gone, NoQuota, Outcome, Refused, Retry, Unknown
from gateway.notify.due import SLOTS
from gateway.notify.queue import by_provider_id, mark_answered, mark_seen
from gateway.state import State, open_state, tables
from tests.gateway.notify.ledger import ALERT, LINE, MAIL, PAGE, VOICE, Asked, Hanging, Ledger, Provider, message, people
from tests.gateway.town import NOW_US


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    people(opened)
    yield opened
    opened.close()


# ---- where it goes --------------------------------------------------------------------------------------


def test_a_message_goes_to_the_persons_first_address_and_its_provider_names_it(state: State) -> None:
    line, mail = Provider(lambda _: Delivered("L-77")), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    ledger.queue(message())
    ledger.step()
    assert (line.sent, mail.sent) == ([("n-1", "U-farmer")], [])
    assert (ledger.row()["state"], ledger.row()["provider_id"]) == ("sent", "L-77")
    with state.read() as connection:
        assert by_provider_id(connection, "line", "L-77") == "n-1"
        assert by_provider_id(connection, "sms", "L-77") is None


def test_a_message_for_one_channel_only_goes_there(state: State) -> None:
    line, voice = Provider(), Provider()
    ledger = Ledger(state, line=line, voice=voice)
    ledger.queue(message(), by="voice")
    ledger.step()
    assert (line.sent, voice.sent) == ([], [("n-1", "+815000000001")])


# ---- another address ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [Refused("400: invalid"), Gone("unfollowed"), NoQuota("the month is used up")],
    ids=["refused", "gone", "no quota"],
)
def test_what_one_address_will_not_take_goes_to_the_next_at_once(state: State, outcome: Outcome) -> None:
    mail = Provider()
    ledger = Ledger(state, line=Provider(lambda _: outcome), mail=mail)
    ledger.queue(message(severity="info"))
    ledger.step()
    assert ledger.states() == [("line", "failed_over"), ("mail", "sent")]
    [stood_in] = [row for row in ledger.rows() if row["channel"] == "mail"]
    assert (stood_in["failed_over_from"], stood_in["page"], stood_in["address"]) == ("n-1", PAGE, MAIL)
    assert mail.messages[0].id == stood_in["id"] != "n-1"
    assert (mail.messages[0].title, ledger.page()["changed"]) == ("【わな作動】", False)


def test_an_address_that_is_gone_is_handed_over_as_lost(state: State) -> None:
    lost: list[tuple[str, str]] = []

    def note(_: Connection, address: str, why: str, now_us: int) -> None:
        assert now_us == NOW_US
        lost.append((address, why))

    ledger = Ledger(state, note, line=Provider(lambda _: Gone("blocked")), mail=Provider(lambda _: Gone("550 5.1.1")))
    ledger.channels["voice"] = Provider(lambda _: Refused("busy"))
    ledger.queue(message())
    ledger.step()
    assert lost == [(LINE, "gone"), (MAIL, "bounced")]


def test_a_contact_that_no_address_reaches_is_a_dead_letter_and_its_page_goes_on_at_once(state: State) -> None:
    refuse = Provider(lambda _: Refused("no"))
    ledger = Ledger(state, line=refuse, mail=refuse, voice=refuse)
    ledger.queue(message())
    ledger.step()
    assert ledger.states() == [("line", "failed_over"), ("mail", "failed_over"), ("voice", "dead")]
    assert ledger.page()["changed"] is True
    assert ledger.step() == 0, "each address was asked once"


def test_something_critical_that_is_not_sent_in_a_minute_goes_to_the_next_address_too(state: State) -> None:
    line, mail = Provider(lambda _: Retry("503")), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    ledger.queue(message())
    ledger.step()
    ledger.later(59)
    ledger.step()
    assert mail.sent == []
    ledger.later(1)
    ledger.step()
    assert ledger.states() == [("line", "failed_over"), ("mail", "sent")]
    before = len(line.sent)
    ledger.later(3600)
    ledger.step()
    assert (len(line.sent), len(mail.sent)) == (before, 1), "what stands in for it has arrived: it is not sent again"


def test_a_step_may_say_how_long_one_address_may_take(state: State) -> None:
    mail = Provider()
    ledger = Ledger(state, line=Provider(lambda _: Retry("503")), mail=mail)
    ledger.queue(message(severity="warning"), failover_after_s=10)
    ledger.later(10)
    ledger.step()
    assert len(mail.sent) == 1


def test_where_there_is_no_other_address_it_is_tried_for_as_long_as_it_takes(state: State) -> None:
    line = Provider(lambda _: Retry("503"))
    ledger = Ledger(state, line=line)
    for address in (MAIL, VOICE):
        ledger.set("addresses", address, state="unreachable")
    ledger.queue(message())
    ledger.step()
    ledger.later(60)
    ledger.step()
    assert (ledger.row()["state"], ledger.page()["changed"]) == ("queued", True), "the page need not wait for it"
    line.answer = lambda _: Delivered()
    ledger.later(600)
    ledger.step()
    assert ledger.row()["state"] == "sent"


def test_when_all_others_refuse_the_one_that_was_only_slow_is_tried_on(state: State) -> None:
    line, refuse = Provider(lambda _: Retry("503")), Provider(lambda _: Refused("no"))
    ledger = Ledger(state, line=line, mail=refuse, voice=refuse)
    ledger.queue(message())
    ledger.step()
    ledger.later(60)
    line.answer = lambda _: Delivered()
    ledger.step()
    assert ledger.states() == [("line", "sent"), ("mail", "failed_over"), ("voice", "failed_over")]
    assert {id_ for id_, _ in line.sent} == {"n-1"}, "under the id that its provider knows"


def test_a_message_for_one_channel_only_never_comes_over_another(state: State) -> None:
    line = Provider()
    ledger = Ledger(state, line=line, voice=Provider(lambda _: Refused("no such number")))
    ledger.queue(message(), by="voice")
    ledger.step()
    assert (ledger.states(), line.sent, ledger.page()["changed"]) == ([("voice", "dead")], [], True)


def test_the_test_of_an_address_never_goes_to_another(state: State) -> None:
    mail = Provider()
    ledger = Ledger(state, line=Provider(lambda _: Gone("unfollowed")), mail=mail)
    ledger.queue(message(kind="test"))
    ledger.step()
    assert (ledger.states(), mail.sent) == ([("line", "dropped")], []), "and is no dead letter: who tested it knows"


def test_an_address_that_became_unreachable_meanwhile_is_not_even_tried(state: State) -> None:
    line, mail = Provider(), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    ledger.queue(message())
    ledger.set("addresses", LINE, state="unreachable", why="unfollowed")
    ledger.step()
    assert (line.sent, len(mail.sent)) == ([], 1)


def test_what_arrives_after_another_address_was_tried_is_noted_and_nothing_else(state: State) -> None:
    line, mail = Hanging(), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    ledger.queue(message())
    attempt = threading.Thread(target=ledger.deliverer.step)
    attempt.start()
    assert line.began.acquire(timeout=10)
    ledger.later(60)
    ledger.another().step()
    assert len(mail.sent) == 1
    line.released.set()
    attempt.join(10)
    row = ledger.row()
    assert (row["state"], row["sent_us"]) == ("failed_over", ledger.now_us)
    ledger.later(3600)
    assert ledger.step() == 0


def test_what_arrived_late_was_not_unreachable(state: State) -> None:
    refuse = Provider(lambda _: Refused("no"))
    ledger = Ledger(state, line=Provider(lambda _: Retry("503")), mail=Provider(lambda _: Retry("450")), voice=refuse)
    ledger.queue(message())
    ledger.step()
    ledger.later(60)
    ledger.step()
    ledger.set("notifications", "n-1", sent_us=ledger.now_us)
    ledger.later(60)
    ledger.step()
    assert ledger.states() == [("line", "failed_over"), ("mail", "failed_over"), ("voice", "dropped")]
    assert ledger.page()["changed"] is False


# ---- what is over ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "id_", "to"), [("pages", PAGE, "closed"), ("alerts", ALERT, "resolved")])
@pytest.mark.parametrize("kind", ["alert", "again"])
def test_what_is_over_and_not_critical_is_dropped(state: State, table: str, id_: str, to: str, kind: str) -> None:
    line = Provider()
    ledger = Ledger(state, line=line)
    ledger.queue(message(severity="warning", kind=kind), alert=ALERT)
    ledger.set(table, id_, state=to)
    ledger.step()
    assert (line.sent, ledger.row()["state"]) == ([], "dropped")


def test_what_is_over_and_critical_says_so_and_asks_nothing(state: State) -> None:
    line = Provider()
    ledger = Ledger(state, line=line)
    buttons = [{"answer": "going", "label": "行きます"}]
    ledger.queue(message(buttons=buttons, answer_url="https://gateway.example/a/x"))
    ledger.set("pages", PAGE, state="closed")
    ledger.step()
    [said] = line.messages
    assert (said.over, said.title, said.buttons, said.answer_url) == (True, "（解除済み）【わな作動】", (), None)


@pytest.mark.parametrize("kind", ["update", "result", "over", "digest", "test", "reply", "office"])
def test_what_is_not_about_its_beginning_is_sent_whatever_is_over(state: State, kind: str) -> None:
    line = Provider()
    ledger = Ledger(state, line=line)
    ledger.queue(message(severity="info", kind=kind))
    ledger.set("pages", PAGE, state="closed")
    ledger.step()
    assert [said.over for said in line.messages] == [False]


# ---- what a crash may leave behind ----------------------------------------------------------------------


def crash(ledger: Ledger, channel: str, *, arrived: bool) -> None:
    """The process ends while the attempt is under way; `arrived`: its provider had it by then."""

    class Killed(BaseException):
        pass

    def die(_: str) -> Outcome:
        raise Killed

    provider = ledger.channels[channel]
    assert isinstance(provider, Provider)
    answer, provider.answer = provider.answer, die
    with pytest.raises(Killed):
        ledger.deliverer.step()
    provider.answer = answer
    if not arrived:
        provider.sent.clear()
    ledger.deliverer = ledger.another()


def test_a_channel_that_tells_a_repetition_is_simply_given_it_again(state: State) -> None:
    line = Provider()
    ledger = Ledger(state, line=line)
    ledger.queue(message())
    crash(ledger, "line", arrived=True)
    assert ledger.row()["intent_us"] is None, "which costs no transaction before each attempt"
    ledger.step()
    assert line.sent == [("n-1", "U-farmer")] * 2
    assert ledger.row()["possibly_twice"] is False


def test_one_that_cannot_is_given_it_again_and_the_ledger_says_possibly_twice(state: State) -> None:
    mail = Provider(knows_repetition=False)
    ledger = Ledger(state, mail=mail)
    ledger.queue(message(), by="mail")
    crash(ledger, "mail", arrived=True)
    assert ledger.row()["intent_us"] == NOW_US
    ledger.step()
    row = ledger.row()
    assert (row["state"], row["possibly_twice"], row["intent_us"], len(mail.sent)) == ("sent", True, None, 2)


def test_an_attempt_whose_end_is_known_is_never_possibly_twice(state: State) -> None:
    answers: Iterator[Outcome] = iter([Retry("450"), Retry("450"), Delivered()])
    ledger = Ledger(state, mail=Provider(lambda _: next(answers), knows_repetition=False))
    ledger.queue(message(), by="mail")
    for _ in range(3):
        ledger.step()
        ledger.later(100)
    assert (ledger.row()["state"], ledger.row()["possibly_twice"]) == ("sent", False)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_provider_that_can_be_asked_is_asked_first(state: State, arrived: bool) -> None:
    found = Delivered("CA-1") if arrived else None
    voice = Asked(lambda: found)
    ledger = Ledger(state, voice=voice)
    ledger.queue(message(), by="voice")
    crash(ledger, "voice", arrived=arrived)
    ledger.later(5)
    ledger.step()
    assert voice.asked == [("n-1", "+815000000001", NOW_US)]
    assert len(voice.sent) == 1, "the telephone rang once"
    assert (ledger.row()["state"], ledger.row()["provider_id"]) == ("sent", "CA-1" if arrived else None)


def test_a_provider_that_gives_no_answer_is_asked_again_before_anything_is_sent(state: State) -> None:
    answers: list[Callable[[], Delivered | None]] = []

    def find() -> Delivered | None:
        return answers.pop(0)()

    def fail() -> Delivered | None:
        raise OSError("no route")

    voice = Asked(find)
    answers += [fail, lambda: Delivered("CA-1")]
    ledger = Ledger(state, voice=voice)
    ledger.queue(message(), by="voice")
    crash(ledger, "voice", arrived=True)
    ledger.step()
    assert (ledger.row()["state"], ledger.row()["intent_us"]) == ("queued", NOW_US)
    ledger.later(10)
    ledger.step()
    assert (ledger.row()["state"], len(voice.sent), len(voice.asked)) == ("sent", 1, 2)


def test_handed_over_without_a_word_back_is_treated_like_a_crash(state: State) -> None:
    answers: Iterator[Outcome] = iter([Unknown("the line went dead after DATA"), Delivered()])
    ledger = Ledger(state, mail=Provider(lambda _: next(answers), knows_repetition=False))
    ledger.queue(message(), by="mail")
    ledger.step()
    assert (ledger.row()["state"], ledger.row()["intent_us"], ledger.row()["possibly_twice"]) == ("queued", NOW_US, False)
    ledger.later(10)
    ledger.step()
    assert (ledger.row()["state"], ledger.row()["possibly_twice"]) == ("sent", True)


def test_what_was_settled_before_the_attempt_is_not_attempted(state: State) -> None:
    mail = Provider(knows_repetition=False)
    ledger = Ledger(state, mail=mail)
    ledger.queue(message(), by="mail")
    [row] = ledger.deliverer._due()
    ledger.set("notifications", "n-1", state="dropped")
    ledger.deliverer._attempt(row)
    assert (mail.sent, ledger.row()["state"]) == ([], "dropped")


# ---- what becomes known later ---------------------------------------------------------------------------


def test_seen_and_answered_stay_what_they_are(state: State) -> None:
    ledger = Ledger(state, line=Provider())
    ledger.queue(message())
    ledger.step()
    with state.write() as connection:
        assert mark_seen(connection, "n-1", NOW_US + 1)
        assert mark_seen(connection, "n-1", NOW_US + 9)
        assert not mark_seen(connection, "n-2", NOW_US)
    assert (ledger.row()["state"], ledger.row()["seen_us"]) == ("seen", NOW_US + 1)
    with state.write() as connection:
        mark_answered(connection, "n-1", NOW_US + 2)
        mark_seen(connection, "n-1", NOW_US + 3)
    assert (ledger.row()["state"], ledger.row()["answered_us"]) == ("answered", NOW_US + 2)


def test_who_answers_before_the_provider_does_is_believed(state: State) -> None:
    line = Hanging()
    ledger = Ledger(state, line=line)
    ledger.queue(message())
    attempt = threading.Thread(target=ledger.deliverer.step)
    attempt.start()
    assert line.began.acquire(timeout=10)
    with state.write() as connection:
        mark_answered(connection, "n-1", NOW_US)
    line.released.set()
    attempt.join(10)
    assert ledger.row()["state"] == "answered"


def test_an_answer_over_one_address_stops_what_waits_for_another(state: State) -> None:
    mail = Provider()
    ledger = Ledger(state, line=Provider(lambda _: Retry("503")), mail=mail)
    ledger.queue(message())
    ledger.later(60)
    ledger.deliverer._fail_over_what_is_overdue()
    with state.write() as connection:
        mark_answered(connection, "n-1", ledger.now_us)
    ledger.step()
    assert (mail.sent, ledger.states()) == ([], [("line", "answered"), ("mail", "dropped")])


# ---- nobody waits for others ----------------------------------------------------------------------------


@contextmanager
def at_work(ledger: Ledger) -> Iterator[None]:
    thread = threading.Thread(target=ledger.deliverer.run)
    thread.start()
    try:
        yield
    finally:
        ledger.deliverer.stop()
        thread.join(20)
        assert not thread.is_alive()


def ringing(bell: Callable[[], object]) -> Callable[[str], Outcome]:
    """Takes what comes and rings."""

    def take(_: str) -> Outcome:
        bell()
        return Delivered()

    return take


def crowd(state: State, channel: Any, number: int) -> list[Person]:
    """So many people with one address of this channel each."""
    found = []
    with state.write() as connection:
        for n in range(number):
            contact, address = f"{channel}-{n}", f"{channel}-at-{n}"
            connection.execute(insert(tables.contacts), {"id": contact, "name": "x", "created_us": 0, "created_by": "test"})
            connection.execute(
                insert(tables.addresses),
                {"id": address, "contact": contact, "channel": channel, "address": address, "rank": 0, "state": "proved",
                 "created_us": 0},
            )  # fmt: skip
            found.append(Person(contact, "x", "ja", (Address(address, channel, address),)))
    return found


def test_a_channel_that_hangs_in_all_its_slots_delays_no_other(state: State) -> None:
    line, mail = Hanging(), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    for n, person in enumerate(crowd(state, "line", SLOTS + 4)):
        ledger.queue(message(f"l-{n}"), person)
    came = threading.Event()
    mail.answer = ringing(came.set)
    with at_work(ledger):
        try:
            for _ in range(SLOTS):
                assert line.began.acquire(timeout=10)
            ledger.queue(message("m-1", severity="info"), crowd(state, "mail", 1)[0])
            ledger.deliverer.ring()
            assert came.wait(10)
            assert not line.began.acquire(blocking=False), "no more than its slots at once"
        finally:
            line.released.set()


def test_something_critical_passes_what_waits_for_a_slot(state: State) -> None:
    """What waits is chosen when a slot is free, not before."""
    line = Hanging()
    ledger = Ledger(state, line=line)
    everybody = crowd(state, "line", SLOTS + 40)
    for n, person in enumerate(everybody[:-1]):
        ledger.queue(message(f"l-{n}", severity="info"), person)
    with at_work(ledger):
        try:
            for _ in range(SLOTS):
                assert line.began.acquire(timeout=10)
            ledger.queue(message("urgent"), everybody[-1])
            ledger.deliverer.ring()
        finally:
            line.released.set()
        for _ in range(40):
            assert line.began.acquire(timeout=10)
    order = [id_ for id_, _ in line.sent]
    assert order.index("urgent") < 2 * SLOTS + 1


def test_one_address_gets_one_message_at_a_time_while_the_persons_other_address_is_free(state: State) -> None:
    line, mail = Hanging(), Provider()
    ledger = Ledger(state, line=line, mail=mail)
    came = threading.Event()
    mail.answer = ringing(came.set)
    ledger.queue(message("n-1"))
    ledger.queue(message("n-2"))
    ledger.queue(message("n-3"), by="mail")
    with at_work(ledger):
        try:
            assert came.wait(10)
            assert line.began.acquire(timeout=10)
            assert not line.began.acquire(blocking=False)
        finally:
            line.released.set()


def test_what_is_on_its_way_is_not_found_again_however_often_somebody_looks(state: State) -> None:
    ledger = Ledger(state, line=Provider())
    ledger.queue(message("n-1"))
    ledger.queue(message("n-2"))
    [first] = ledger.deliverer._due()
    assert (first.id, ledger.deliverer._due(), ledger.deliverer._due()) == ("n-1", [], [])
    ledger.deliverer._attempt(first)
    assert [row.id for row in ledger.deliverer._due()] == ["n-2"]


def test_a_message_is_on_its_way_long_before_a_second_is_over(state: State) -> None:
    """Rung for, not found by chance at the next look."""
    line = Provider()
    ledger = Ledger(state, line=line)
    came = threading.Semaphore(0)
    line.answer = ringing(came.release)
    with at_work(ledger):
        for n in range(20):
            ledger.queue(message(f"n-{n}"))
            ledger.deliverer.ring()
            assert came.acquire(timeout=0.9)


def test_nothing_that_names_a_person_is_logged(state: State, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(state, mail=Provider(lambda _: Retry("450 farmer@example.jp is full")))
    ledger.channels["line"] = Provider(lambda _: Refused("U-farmer is blocked"))
    ledger.channels["voice"] = Provider(lambda _: Refused("+815000000001 is no number"))
    ledger.queue(message())
    ledger.queue(message("n-2"), by="voice")
    ledger.step()
    assert "farmer" not in caplog.text
    assert "+81" not in caplog.text
