"""What next, as a pure question: the same answer for the same facts, and nothing to do where everything was done."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from gateway.alerting import escalation
from gateway.alerting.escalation import AlertView, Memory, Plan, Said, View, next_at
from gateway.alerting.route import RouteConfig
from gateway.contacts.person import Address, Person
from gateway.notify.message import Answer

NOW_US = 1_780_434_720_000_000
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
ROUTE = RouteConfig.model_validate({"needed": 1, "steps": [{"to": "a"}, {"after": "10m", "to": "b"}]})


def person(contact: str, quiet_until_us: int | None = None) -> Person:
    return Person(contact, contact, "ja", (Address(f"{contact}-1", "line", contact),), quiet_until_us)


def view(plan: Plan | None = None, *, answers: tuple[Said, ...] = (), critical: bool = True, **changed: object) -> View:
    """A page with two steps; after a plan, as it would be read back."""
    told_us = NOW_US if plan else None
    fields: dict[str, object] = {
        "kind": "trap", "state": "waiting", "needed": 1, "step": 0, "round": 0, "opened_us": NOW_US, "stepped_us": None,
        "answered_us": None, "memory": Memory(), "route": ROUTE, "zone": ZoneInfo("Asia/Tokyo"),
        "people": [[person("tanaka")], [person("ito")]], "office": [person("yakuba")],
        "alerts": [AlertView("1", "firing", critical, told_us)], "answers": answers,
    }  # fmt: skip
    if plan is not None:
        fields |= {name: getattr(plan, name) for name in ("state", "step", "round", "stepped_us", "answered_us")}
        fields["memory"] = Memory.model_validate_json(plan.memory.model_dump_json(exclude_defaults=True))
    return View(**{**fields, **changed})  # type: ignore[arg-type]


def said(*answers: tuple[str, Answer]) -> tuple[Said, ...]:
    return tuple(Said(number, contact, answer, NOW_US) for number, (contact, answer) in enumerate(answers, 1))


def test_a_look_with_nothing_new_plans_nothing_new() -> None:
    first = escalation.next(view(), NOW_US)
    assert [(one.contact, one.key) for one in first.messages] == [("tanaka", "0/step/0")]
    assert first.due_us == NOW_US + 10 * MINUTE_US
    again = escalation.next(view(first), NOW_US + MINUTE_US)
    assert (again.messages, again.due_us, again.step, again.state) == ([], first.due_us, 1, "asking")


def test_the_view_is_left_as_it_is() -> None:
    before = view()
    escalation.next(before, NOW_US)
    assert before == view()


def test_a_missed_step_is_made_up_for() -> None:
    first = escalation.next(view(), NOW_US)
    late = escalation.next(view(first), NOW_US + 5 * HOUR_US)
    assert [one.contact for one in late.messages] == ["ito"]


def test_only_the_last_word_of_a_contact_counts() -> None:
    first = escalation.next(view(), NOW_US)
    plan = escalation.next(view(first, answers=said(("tanaka", "cannot"), ("tanaka", "going"))), NOW_US)
    assert (plan.state, plan.acknowledge) == ("answered", ("tanaka",))
    plan = escalation.next(view(first, answers=said(("tanaka", "going"), ("tanaka", "seen"))), NOW_US)
    assert plan.state == "answered", "seen takes nothing back"


def test_the_office_is_asked_again_when_even_there_everybody_cannot() -> None:
    answers = said(("tanaka", "cannot"), ("ito", "cannot"))
    plan = escalation.next(view(escalation.next(view(), NOW_US), answers=answers), NOW_US)
    assert [(one.contact, one.kind) for one in plan.messages] == [("yakuba", "office")]
    answers = said(("tanaka", "cannot"), ("ito", "cannot"), ("yakuba", "cannot"))
    plan = escalation.next(view(plan, answers=answers), NOW_US + 30 * MINUTE_US)
    assert [(one.contact, one.kind) for one in plan.messages] == [("yakuba", "office")]
    assert plan.state == "exhausted"


def test_quiet_hours_hold_back_what_is_not_critical_and_nothing_else() -> None:
    quiet = [[person("tanaka", NOW_US + HOUR_US)], [person("ito")]]
    assert [one.contact for one in escalation.next(view(people=quiet), NOW_US).messages] == ["tanaka"]
    plan = escalation.next(view(people=quiet, critical=False), NOW_US)
    assert (plan.messages, plan.due_us, plan.memory.waited) == ([], NOW_US + HOUR_US, "quiet")


def test_a_member_who_sleeps_is_told_when_they_wake_while_the_page_still_asks() -> None:
    people = [[person("tanaka"), person("sato", NOW_US + 5 * MINUTE_US)], [person("ito")]]
    plan = escalation.next(view(people=people, critical=False), NOW_US)
    assert [one.contact for one in plan.messages] == ["tanaka"]
    assert plan.due_us == NOW_US + 5 * MINUTE_US
    awake = [[person("tanaka"), person("sato")], [person("ito")]]
    later = escalation.next(view(plan, people=awake, critical=False), NOW_US + 5 * MINUTE_US)
    assert [one.contact for one in later.messages] == ["sato"]


def test_mornings_are_those_of_the_zone_also_when_its_clocks_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    def at(*when: int) -> int:
        return round(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]

    assert next_at("07:00", at(2026, 3, 28, 5, 0), berlin) == at(2026, 3, 28, 6, 0)
    assert next_at("07:00", at(2026, 3, 28, 6, 0), berlin) == at(2026, 3, 28, 6, 0), "that very moment"
    assert next_at("07:00", at(2026, 3, 28, 6, 1), berlin) == at(2026, 3, 29, 5, 0), "summer time has begun"
    assert next_at("07:00", at(2026, 10, 24, 6, 0), berlin) == at(2026, 10, 25, 6, 0), "and has ended"
    assert next_at("07:00", at(2026, 12, 31, 23, 30), berlin) == at(2027, 1, 1, 6, 0)


ANSWERS = st.lists(
    st.tuples(st.sampled_from(["tanaka", "ito", "yakuba"]), st.sampled_from(["going", "cannot", "seen"])), max_size=8
)


@given(
    ANSWERS, st.integers(0, 2), st.lists(st.integers(0, 4000), max_size=6), st.sets(st.sampled_from(["tanaka", "ito", "yakuba"]))
)
def test_whatever_is_answered_and_lost_somebody_is_asked_or_it_waits_for_a_time(
    answers: list[tuple[str, Answer]], needed: int, minutes: list[int], lost: set[str]
) -> None:
    given_answers = said(*answers)
    plan: Plan | None = None
    ids: set[tuple[str, str, str]] = set()
    for at in [0, *sorted(minutes)]:
        seen = view(plan, answers=given_answers, needed=needed, lost=frozenset(lost))
        plan = escalation.next(seen, NOW_US + at * MINUTE_US)
        keys = [(one.contact, one.kind, one.key) for one in plan.messages]
        assert len(keys) == len(set(keys))
        assert not ids & set(keys), "said once"
        ids |= set(keys)
        if needed and plan.state != "closed":
            assert plan.due_us is not None, "it never waits for ever"
            assert plan.due_us > NOW_US + at * MINUTE_US, "and never spins"
        if needed == 0:
            assert not any(one.asks for one in plan.messages)
