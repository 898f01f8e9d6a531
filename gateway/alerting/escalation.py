"""A page and now -> what next: whom to tell, which step, when to look again. Pure: no clock, no database, no words.

Everything by level: `next` looks at what is so (alerts, answers, who can be reached) and at what was said already (`Memory`),
and plans the difference. Asked twice with nothing changed it plans nothing, so a lost edge heals and a crash costs nothing.

A page begins when its first people are told; `after` of its steps counts from there, without the time in which it was muted
or enough people were on their way. What an answer does:

| answer | does |
|---|---|
| `going` | counts towards `needed`; enough of them end the asking and acknowledge the alerts |
| `cannot` | is asked no more; when everybody said so, the next step begins at once; after `going` it reopens the asking |
| `done` | resolves the alerts, but not of kind trap: only a visit does. There it counts as `going`, and whoever said it is asked
  again when another `result_within` has passed without a visit |
| `false_alarm`, `with_her`, `found`, `no_animal` | resolve the alerts |
| `seen`, `animal`, `bear`, `search` | are kept, and end no asking; others may act on them |

needed = 0: people are told and nobody is asked; later steps are told at their time while no one has acknowledged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, JsonValue

from gateway.alerting import lifecycle
from gateway.alerting.route import Channel, RouteConfig
from gateway.contacts.person import Person
from gateway.notify.message import Answer, Kind

PageState = Literal["waiting", "asking", "answered", "exhausted", "closed"]
Waited = Literal["outage", "quiet", "digest"]

RESULT_PATIENCE_US = 10 * 60 * 1_000_000
"""Asked what came of it, somebody has this long to answer; then they count as not having answered at all."""
GATHER_US = 2 * 1_000_000
"""Who goes hears who goes too so long after that was said: of two who say it at once it is one message."""
LONGEST_HOLD_US = 10 * 60 * 1_000_000
"""A page waits no longer than this for a start or a return of the broker, however often that happens."""
LOOK_AGAIN_US = 60 * 1_000_000
"""A page that reaches nobody looks for people this often; also the shortest `again_every`."""
ENDINGS: Mapping[Answer, str] = {
    "done": "page.over_done",
    "false_alarm": "page.false_alarm",
    "found": "page.found",
    "no_animal": "page.false_alarm",
    "with_her": "page.with_her",
}
"""The answers that resolve a page's alerts, and what others are told then."""
_S = 1_000_000


class AlertView(NamedTuple):
    """One alert of the page, as it is now."""

    id: str
    state: lifecycle.State
    critical: bool
    told_us: int | None
    """When a message first named it."""
    acknowledged_by: str | None = None


class Said(NamedTuple):
    """One row of `answers`; ids grow."""

    id: int
    contact: str
    answer: Answer
    at_us: int
    about_us: int | None = None
    """When the message was made that they answered; None: they answered what was so."""


class Lacking(NamedTuple):
    """The picture of this alert is here now, and these contacts were told before it was."""

    alert: str
    contacts: frozenset[str]


class Told(BaseModel):
    """What one contact was asked on this page."""

    us: int
    """The last time."""
    steps: list[int] = []
    """Those that told them."""


class Scripted(BaseModel):
    """A page that another room opened: it has no steps of a route, and that room ends it."""

    moment: str
    facts: dict[str, JsonValue] = {}
    ends_us: int | None = None
    """Nothing follows it: over once none of its messages waits any more, at the latest then. None: the room says when."""


class Memory(BaseModel):
    """What a page remembers beside its columns: JSON in `pages.memory`."""

    life: int = 0
    """Grows when a shelved page is told afresh: its messages are other ones then."""
    begun_us: int | None = None
    """When the first people were told, moved by the time in which nobody was asked."""
    spoke_us: int | None = None
    """When an alert was last told to all."""
    told: dict[str, Told] = {}
    waiting: dict[str, int] = {}
    """Contacts of a begun step in their quiet hours: told when those end."""
    waited: Waited | None = None
    """Why it was held back: what it says may be collected with others."""
    announced: list[str] = []
    """Whose `going` the others know of."""
    shared: list[str] = []
    """Whose `going` those who go know of."""
    void: dict[str, int] = {}
    """Answers up to this id count no more: nothing came of them."""
    result_us: int | None = None
    results: int = 0
    asked_us: int | None = None
    """The last time everybody was asked."""
    muted_us: int | None = None
    taken_void: bool = False
    """Somebody acknowledged without being asked, and nothing came of it."""
    office: bool = False
    pictured: bool = False
    """It was told that the picture is there, which is told once."""
    scripted: Scripted | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All that decides about a page."""

    kind: str
    state: PageState
    needed: int
    step: int
    round: int
    opened_us: int
    stepped_us: int | None
    answered_us: int | None
    memory: Memory
    route: RouteConfig
    zone: ZoneInfo
    people: Sequence[Sequence[Person]]
    """Of each step: who can be reached now."""
    office: Sequence[Person] = ()
    alerts: Sequence[AlertView] = ()
    answers: Sequence[Said] = ()
    lost: frozenset[str] = frozenset()
    """Contacts to whom no message of this page could be delivered, or not for so long that nobody waits for it."""
    cooled_us: int | None = None
    """An earlier page of this group was last really sent then."""
    waits: bool = False
    """Whether a message of this page is still to be sent."""
    held_until_us: int = 0
    """What is not critical waits until then."""
    lacking: Lacking | None = None
    """Who was told before the picture came; None: nobody, or there is none."""

    @property
    def critical(self) -> bool:
        """Whether it passes quiet hours, digests, `group_wait`, `cooldown` and the start-up hold: as its worst alert."""
        return any(alert.critical for alert in self.alerts) or self.memory.scripted is not None


class Tell(NamedTuple):
    """One message to plan: `key` says which one of this page, the same at each repetition."""

    contact: str
    kind: Kind
    moment: str
    """`alert`, or a moment of the catalogues like `page.going`."""
    key: str
    asks: bool
    """With buttons."""
    names: tuple[str, ...] = ()
    """Contacts whom it names."""
    missing: int = 0
    alerts: tuple[str, ...] = ()
    """What it is about; empty: all alerts of the page that may speak."""
    by: Channel | None = None


@dataclass(slots=True)
class Plan:
    """What to write in one transaction."""

    state: PageState
    step: int
    round: int
    stepped_us: int | None
    answered_us: int | None
    memory: Memory
    due_us: int | None = None
    messages: list[Tell] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """Alerts that are named for the first time."""
    acknowledge: tuple[str, ...] = ()
    """Contacts by whom the firing alerts are acknowledged."""
    silent: frozenset[str] = frozenset()
    """Alerts that nobody was told of yet: nobody goes for them."""
    resolve: Said | None = None
    """The answer that resolves what is open, as far as its message spoke of it."""
    newer: frozenset[str] = frozenset()
    """Alerts that the resolving answer's message did not speak of: they stay."""
    nobody: bool = False
    """Nobody at all could be told, not even the office."""


def next(view: View, now_us: int) -> Plan:  # noqa: A001 - the word that the page's room uses: what next
    """What follows for the page at `now_us`. The view is left as it is."""
    return _Look(view, now_us).plan()


def latest(answers: Iterable[Said], void: dict[str, int]) -> dict[str, Said]:
    """What counts of the answers: of each contact the last that says anything about going or ending."""
    said: dict[str, Said] = {}
    for one in answers:
        if one.id > void.get(one.contact, 0) and (one.answer in ENDINGS or one.answer in ("going", "cannot")):
            said[one.contact] = one
    return said


def who_go(answers: Iterable[Said], void: dict[str, int], kind: str) -> list[Said]:
    """Those whose word stands that they go, in the order in which they said so."""
    going = [one for one in latest(answers, void).values() if one.answer == "going" or (one.answer == "done" and kind == "trap")]
    return sorted(going, key=lambda one: one.id)


class _Look:
    """One look at one page."""

    def __init__(self, view: View, now_us: int) -> None:
        self.view, self.now_us, self.critical = view, now_us, view.critical
        self.memory = memory = view.memory.model_copy(deep=True)
        self.out = Plan(view.state, view.step, view.round, view.stepped_us, view.answered_us, memory)
        self.by_contact = {person.contact: person for step in (*view.people, view.office) for person in step}
        self.left = set(memory.told) - set(self.by_contact)  # went away, or belong to no step any more
        self.open = [alert for alert in view.alerts if alert.state != "resolved"]
        self.speaking = [alert for alert in self.open if alert.state in ("firing", "acknowledged")]
        self._reckon()

    def _reckon(self) -> None:
        """What the answers say."""
        self.said = latest(self.view.answers, self.memory.void)
        self.going = [one.contact for one in who_go(self.view.answers, self.memory.void, self.view.kind)]
        self.cannot = {one.contact for one in self.said.values() if one.answer == "cannot"}
        taken = [alert for alert in self.open if alert.state == "acknowledged" and not self._is_ours(alert)]
        self.taken = bool(taken) and len(taken) == len(self.speaking) and not self.memory.taken_void
        self.enough = self.taken or (len(self.going) >= max(self.view.needed, 1))

    def _is_ours(self, alert: AlertView) -> bool:
        """Acknowledged by people who said that they go: their later `cannot` takes that back."""
        said = {one.contact for one in self.view.answers}
        return alert.acknowledged_by is not None and set(alert.acknowledged_by.split(", ")) <= said

    # What is planned

    def plan(self) -> Plan:
        out, memory = self.out, self.memory
        if memory.scripted:
            self._end_told(memory.scripted)
            return out
        ending = self._ending()
        if ending and (newer := [alert for alert in self.open if not _is_about(ending, alert)]):
            # Said of what they were told then. Of what joined since nobody has said that it is over.
            out.resolve, out.newer = ending, frozenset(alert.id for alert in newer)
            memory.void[ending.contact] = ending.id
            self._due(self.now_us + _S)
            return out
        if ending or (self.view.alerts and not self.open):
            self._close(ending)
            return out
        if self._is_muted() or not self._has_begun():
            return out
        gone = [one for one in memory.announced if one not in self.going]
        if self.view.answered_us is not None and not self.enough:
            self._reopen(f"short/{self._last_answer()}", gone)
        elif gone and not self.enough:
            self._ask_again(f"short/{self._last_answer()}", gone)
        self._announce()
        if self.enough:
            self._answered()
        if not self.enough:  # looked at again: what nothing came of counts no more
            self._ask()
        self._joined()
        self._picture()
        return out

    def _due(self, at_us: int) -> None:
        self.out.due_us = at_us if self.out.due_us is None else min(self.out.due_us, at_us)

    def _end_told(self, scripted: Scripted) -> None:
        """Closed before its messages are out, they would be dropped as over."""
        if scripted.ends_us is None:
            return
        if self.view.waits and self.now_us < scripted.ends_us:
            self._due(min(self.now_us + LOOK_AGAIN_US, scripted.ends_us))
        else:
            self.out.state = "closed"

    def _tell(self, contact: str, kind: Kind, moment: str, key: str, *, asks: bool, **more: object) -> None:
        self.out.messages.append(Tell(contact, kind, moment, f"{self.memory.life}/{key}", asks, **more))  # type: ignore[arg-type]

    def _is_quiet(self, contact: str) -> int | None:
        """Until when this person is not to be woken for this page."""
        person = self.by_contact.get(contact)
        until = person.quiet_until_us if person else None
        return until if until is not None and until > self.now_us and not self.critical else None

    @property
    def missing(self) -> int:
        return max(self.view.needed - len(self.going), 0)

    # Before it begins

    def _ending(self) -> Said | None:
        ends = [one for one in self.said.values() if one.answer in ENDINGS and (one.answer != "done" or self.view.kind != "trap")]
        ends = [one for one in ends if not self.open or any(_is_about(one, alert) for alert in self.open)]
        return min(ends, key=lambda one: one.id, default=None)

    def _is_muted(self) -> bool:
        """Alerts that may not speak stop the clock."""
        out, memory = self.out, self.memory
        if self.open and not self.speaking:
            memory.muted_us = self.now_us if memory.muted_us is None else memory.muted_us
            return True
        if memory.muted_us is not None:
            passed_us, memory.muted_us = self.now_us - memory.muted_us, None
            if memory.begun_us is not None:
                memory.begun_us += passed_us
            if out.stepped_us is not None:
                out.stepped_us += passed_us
        return False

    def _has_begun(self) -> bool:
        out, memory, route = self.out, self.memory, self.view.route
        if out.step > 0:
            memory.waited = None
            return True
        earliest_us = self.view.opened_us
        if not self.critical:  # which waits for nothing: neither for more of its group, nor because one was told just now
            earliest_us += route.group_wait * _S
            if route.cooldown and self.view.cooled_us is not None:
                earliest_us = max(earliest_us, self.view.cooled_us + route.cooldown * _S)
            first = [*[step for step in self.view.people if step], ()][0]
            quiet = [until for person in first if (until := self._is_quiet(person.contact)) is not None]
            # A link that comes and goes must not hold back a warning for ever.
            outage_us = min(self.view.held_until_us, self.view.opened_us + LONGEST_HOLD_US)
            holds: list[tuple[int, Waited]] = [(outage_us, "outage")]
            if quiet and len(quiet) == len(first):
                holds.append((min(quiet), "quiet"))
            if route.digest:
                holds.append((next_at(route.digest, self.view.opened_us, self.view.zone), "digest"))
            held_us, why = max(holds)
            memory.waited = why if held_us > self.now_us else memory.waited
            earliest_us = max(earliest_us, held_us)
        if earliest_us > self.now_us:
            out.state = "waiting"
            self._due(earliest_us)
            return False
        memory.begun_us = memory.spoke_us = self.now_us
        out.told += [alert.id for alert in self.speaking if alert.told_us is None]
        return True

    # Asking

    def _ask(self) -> None:
        out, memory, steps = self.out, self.memory, self.view.route.all_steps
        out.state = "exhausted" if out.round or memory.office else "asking"
        self._tell_begun()
        while out.step < len(steps):
            at_us = (memory.begun_us or self.now_us) + steps[out.step].after * _S
            if out.step > 0 and not self._nobody_left() and self.now_us < at_us:
                self._due(at_us)
                return
            out.step, out.stepped_us, memory.asked_us = out.step + 1, self.now_us, self.now_us
            self._tell_begun(just=out.step - 1)
        if self.view.needed > 0:
            self._exhaust()
        elif self._nobody_left():
            self._hand_over()
            self._due(self.now_us + max(self.view.route.again_every * _S, LOOK_AGAIN_US))

    def _tell_begun(self, just: int | None = None) -> None:
        """Everybody of the begun steps has to be told once; who could not be reached or was asleep then, now."""
        memory, steps = self.memory, self.view.route.all_steps
        heard = {contact for contact, told in memory.told.items() if told.steps} - self.view.lost
        only_told = self.view.needed == 0 and bool(heard)
        for number in range(self.out.step):
            by = steps[number].by
            for person in self.view.people[number]:
                told = memory.told.get(person.contact)
                if person.contact in self.said or (told and (by is None or number in told.steps)):
                    continue
                if only_told and number != just and person.contact not in memory.waiting:
                    continue  # only told: who joins later has missed no question
                until_us = self._is_quiet(person.contact)
                if until_us is not None:
                    memory.waiting[person.contact] = until_us
                    self._due(until_us)
                    continue
                if memory.waiting.pop(person.contact, None) is not None:
                    memory.waited = "quiet"
                memory.told[person.contact] = Told(us=self.now_us, steps=[*(told.steps if told else ()), number])
                self._tell(person.contact, "alert", "alert", f"step/{number}", asks=self.view.needed > 0, by=by,
                           names=tuple(self.going), missing=self.missing)  # fmt: skip
        for contact in [one for one in memory.waiting if one not in self.by_contact or one in self.said]:
            del memory.waiting[contact]

    def _nobody_left(self) -> bool:
        """Whether nobody who was told may still say that they go."""
        if self.memory.waiting:
            return False
        pending = set(self.memory.told) - self.view.lost - self.left
        if self.view.needed > 0:
            pending -= self.cannot | set(self.going)
        return not pending

    def _exhaust(self) -> None:
        """All steps are through: the office knows, and everybody without an answer is asked again and again."""
        out, memory = self.out, self.memory
        every_us = max(self.view.route.again_every * _S, LOOK_AGAIN_US)
        nobody_left = self._nobody_left()
        again_us = (memory.asked_us or self.now_us) + every_us
        if not memory.office and (nobody_left or self.now_us >= again_us):
            out.state = "exhausted"
            self._hand_over()
        if self.now_us < again_us:
            self._due(again_us)
            return
        out.state, out.round, memory.asked_us = "exhausted", out.round + 1, self.now_us
        self._due(self.now_us + every_us)
        asked = {one.contact for one in out.messages}
        if not (self._ask_again(f"again/{out.round}") or asked) and self.critical:
            self._hand_over()

    def _last_answer(self) -> int:
        return self.view.answers[-1].id if self.view.answers else 0

    def _ask_again(self, key: str, gone: Sequence[str] = ()) -> bool:
        """Everybody who was told, is there and has not answered; whether there was one. `gone`: who said that they go, then not.

        That one who was to come along does not is told to who goes, too: nobody should go alone without knowing it.
        """
        if gone:
            for contact in self.going:
                self._tell(contact, "update", "page.withdrew", key, asks=False, names=tuple(gone), missing=self.missing)
        fresh = {one.contact for one in self.out.messages if one.asks}
        found = False
        for contact, told in self.memory.told.items():
            if contact in self.said or contact in fresh or contact in self.left or self._is_quiet(contact) is not None:
                continue
            found, told.us = found or contact not in self.view.lost, self.now_us
            names, moment = tuple(self.going), "page.again_more" if self.going else "page.again"
            if gone:
                names, moment = tuple(gone), "page.withdrew"
            self._tell(contact, "again", moment, key, asks=True, names=names, missing=self.missing)
        return found

    def _hand_over(self) -> None:
        """The office hears that nobody is left; also again, where even then nobody was."""
        out, memory = self.out, self.memory
        if not self.view.office:
            out.nobody = True
            self._due(self.now_us + LOOK_AGAIN_US)  # until there is an office
            return
        if memory.office and self.view.needed == 0:
            return
        memory.office = True
        moment = "page.exhausted" if set(memory.told) - self.view.lost else "page.nobody"
        for person in self.view.office:
            told = memory.told.get(person.contact)
            memory.told[person.contact] = Told(us=self.now_us, steps=told.steps if told else [])
            self._tell(person.contact, "office", moment, f"office/{out.round}", asks=self.view.needed > 0,
                       names=tuple(self.going), missing=self.missing)  # fmt: skip

    # Answered

    def _announce(self) -> None:
        """Whoever was told hears who goes, and how many more are needed; who goes too a moment later, of all that go by then."""
        memory, hearers = self.memory, self._hearers()
        new = [one for one in self.going if one not in memory.announced]
        memory.announced = list(self.going)
        memory.shared = [one for one in memory.shared if one in self.going]  # who goes again after all is news again
        if self.view.needed == 0:
            return
        if new:
            self._say_who_goes(new, [one for one in hearers if one not in self.going])
        new = [one for one in self.going if one not in memory.shared]
        if new and len(self.going) > 1:
            at_us = min(self.said[one].at_us for one in new) + GATHER_US
            if self.now_us < at_us:
                self._due(at_us)
                return
            self._say_who_goes(new, [one for one in hearers if one in self.going])
        memory.shared = list(self.going)

    def _say_who_goes(self, new: Sequence[str], hearers: Sequence[str]) -> None:
        latest = max(new, key=lambda one: self.said[one].id)
        checked = all(self.said[one].answer == "done" for one in new)  # nobody waits for who has been there already
        for contact in hearers:
            if contact == latest:
                continue  # who else goes they were shown when they answered
            asks = not self.enough and contact not in self.going
            moment = "page.more"
            if self.enough:
                moment = "page.enough" if self.view.needed > 1 else "page.going"
                if contact in self.going:
                    moment = "page.enough_goer"  # who reads only that others go might stay at home
            if checked:
                moment = "page.checked" if self.enough else "page.checked_more"
            names = tuple(one for one in (new if checked else self.going) if one != contact)
            self._tell(contact, "update", moment, f"going/{self.said[latest].id}", asks=asks, names=names, missing=self.missing)

    def _hearers(self) -> list[str]:
        """Who was told, without those who can't go, sleep or went away; who goes hears everything."""
        quiet = {one for one in self.memory.told if self._is_quiet(one) is not None}
        return [one for one in self.memory.told if one in self.going or one not in self.cannot | quiet | self.left]

    def _reopen(self, because: str, gone: Sequence[str] = ()) -> None:
        """There were enough and are no longer: the clock goes on from where it stopped, and who was told is asked anew."""
        out, memory = self.out, self.memory
        if memory.begun_us is not None and out.answered_us is not None:
            memory.begun_us += self.now_us - out.answered_us
        out.answered_us, memory.result_us, memory.asked_us = None, None, self.now_us
        memory.announced = [one for one in memory.announced if one in self.going]
        self._ask_again(because, gone)

    def _answered(self) -> None:
        """Enough go: nobody is asked any more, until it is time to hear what came of it."""
        out, memory = self.out, self.memory
        out.state = "answered"
        if self.going:
            out.acknowledge = tuple(self.going)
            out.silent = frozenset(alert.id for alert in self.open if alert.told_us is None and alert.id not in out.told)
        words = [self.said[one] for one in self.going]
        if out.answered_us is None:
            out.answered_us = max((one.at_us for one in words), default=self.now_us)
        if self.view.needed == 0 or not self.view.route.result_within:
            return
        since_us = max([out.answered_us, *(one.at_us for one in words)])
        if memory.result_us is not None and any(one.at_us >= memory.result_us for one in words):
            memory.result_us = None  # somebody answered that
        if memory.result_us is None:
            ask_us = since_us + self.view.route.result_within * _S
            if self.now_us < ask_us:
                self._due(ask_us)
                return
            memory.result_us, memory.results = self.now_us, memory.results + 1
            for contact in self.going:
                self._tell(contact, "result", "page.result", f"result/{memory.results}", asks=True)
        if self.now_us < memory.result_us + RESULT_PATIENCE_US:
            self._due(memory.result_us + RESULT_PATIENCE_US)
            return
        memory.void.update({one.contact: one.id for one in words})
        memory.taken_void = memory.taken_void or self.taken
        self._reckon()
        self._reopen(f"void/{memory.results}")

    # Later

    def _joined(self) -> None:
        """Alerts that joined are told in one message."""
        out, memory = self.out, self.memory
        new = [alert for alert in self.speaking if alert.told_us is None and alert.id not in out.told]
        if not new or out.step == 0 or not memory.told:
            return
        told = [alert for alert in self.view.alerts if alert.told_us is not None]
        rises = any(alert.critical for alert in new) and not any(alert.critical for alert in told)
        at_us = (memory.spoke_us or 0) + self.view.route.group_interval * _S
        if self.now_us < at_us and not rises:
            self._due(at_us)
            return
        memory.spoke_us = self.now_us
        out.told += [alert.id for alert in new]
        which = ",".join(sorted(alert.id for alert in new))
        for contact in self._hearers():
            asks = self.view.needed > 0 and not self.enough and contact not in self.going
            self._tell(contact, "update", "page.joined", f"joined/{which}", asks=asks, alerts=tuple(alert.id for alert in new))

    def _picture(self) -> None:
        """Text went first, and the picture is there: once, to who was told without it. It asks nothing and starts nothing."""
        memory, lacking = self.memory, self.view.lacking
        if lacking is None or memory.pictured:
            return
        memory.pictured = True
        for contact in memory.told:
            if contact in lacking.contacts and contact not in self.cannot | self.left:
                self._tell(contact, "picture", "alert.picture", "picture", asks=False, alerts=(lacking.alert,))

    def _close(self, ending: Said | None) -> None:
        """It is over: who set out hears it always, everybody who was told where the route says so."""
        out, memory = self.out, self.memory
        out.resolve, out.state = ending, "closed"
        if out.step == 0 and self.critical and memory.muted_us is None:
            # It fired and is over before anybody was told: what is critical is told all the same, as over.
            out.step, out.stepped_us, memory.begun_us = 1, self.now_us, self.now_us
            self._tell_begun(just=0)
            out.messages = [one._replace(asks=False) for one in out.messages]
            return
        for contact in memory.told:
            if ending and contact == ending.contact:
                continue
            if contact in self.going or (self.view.route.tell_end and self._is_quiet(contact) is None):
                names = (ending.contact,) if ending else ()
                moment = ENDINGS[ending.answer] if ending else "page.over"
                self._tell(contact, "over", moment, "over", asks=False, names=names)


def _is_about(said: Said, alert: AlertView) -> bool:
    """Whether the message that was answered spoke of the alert."""
    return said.about_us is None or (alert.told_us is not None and alert.told_us <= said.about_us)


def next_at(time_of_day: str, after_us: int, zone: ZoneInfo) -> int:
    """The next moment, not before `after_us`, at which clocks of the zone show this time (`07:00`)."""
    hour, minute = (int(part) for part in time_of_day.split(":"))
    local = datetime.fromtimestamp(after_us / 1e6, UTC).astimezone(zone)
    for days in range(3):
        at = (local.replace(tzinfo=None) + timedelta(days=days)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        at_us = round(at.replace(tzinfo=zone).timestamp()) * _S
        if at_us >= after_us:
            return at_us
    raise AssertionError("a day has its morning")
