"""Who may do what, to what: two tables and the functions that read them. Default deny; the only place that knows roles.

An action stands in `POLICY` with the roles that have it, each in a *relation* to what it is done to. What has no row is refused,
and so is who needs a relation where nobody says to what. A route that lists asks `has`, and leaves out what the `extent` of
somebody's action does not cover.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol


class Relation(StrEnum):
    """What ties somebody to what they want to see or change."""

    ANY = "any"
    """None is needed."""
    THINGS = "things"
    """All that concerns no person: devices, nodes, areas, the gateway itself."""
    GROUP = "group"
    """A device that one of their groups looks after: `deployment.groups`."""
    PERSON = "person"
    """A person whom one of their groups watches over: `watched.family`."""
    JOB = "job"
    """A node of a job of theirs, while the job runs."""
    CASE = "case"
    """A search that they were asked to help in, while it is open."""


ANY, THINGS, GROUP, PERSON, JOB, CASE = Relation

ROLES: Mapping[str, str] = {
    "operator": "keeps machines, messages and the gateway itself alive; does not see where people are",
    "officer": "answers for the town: people, traps, streets, searches, and who may come in",
    "installer": "puts up the nodes of a job, for its time",
    "farmer": "looks after the traps and cameras of a group",
    "hunter": "as a farmer, of another group",
    "family": "watches over a person",
    "volunteer": "helps to search, while the search is open",
    "viewer": "a screen on a wall: nothing that names a person",
    "node": "a machine that hands in pictures",
}
"""What each role is for. An actor may have several."""

_STAFF = {"operator": ANY, "officer": ANY}
_LOOKS = {**_STAFF, "viewer": ANY}
_KEEPS = {"operator": THINGS, "officer": ANY}
_SEES = {**_KEEPS, "viewer": THINGS}
_TRAPS = {"farmer": GROUP, "hunter": GROUP}
_OFFICER = {"officer": ANY}
_OPERATOR = {"operator": ANY}
_JOB = {"installer": JOB}

POLICY: Mapping[str, Mapping[str, Relation]] = {
    # --- the gateway itself
    "api.read": {**_LOOKS, "installer": ANY},  # the description of this API
    "metrics.read": _LOOKS,
    "stream.read": {**_LOOKS, **_TRAPS, **_JOB, "family": PERSON},  # what happens, as it happens: what they may read of it
    "quarantine.read": _OPERATOR,  # raw messages as they came, whatever is in them
    "loss.read": _LOOKS,
    "delivery.read": _STAFF,  # who was told what, and when
    "delivery.manage": _STAFF,
    "silence.read": _LOOKS,
    "silence.set": _STAFF,
    "audit.read": _OFFICER,  # who did what, and who looked at whom
    # --- devices
    "device.read": {**_LOOKS, **_TRAPS, **_JOB},
    "reading.read": {**_LOOKS, **_TRAPS, **_JOB},
    "event.read": {**_LOOKS, **_TRAPS, **_JOB},
    "alert.read": {**_SEES, **_TRAPS, **_JOB, "family": PERSON},
    "alert.acknowledge": {**_KEEPS, **_TRAPS},
    "alert.resolve": _KEEPS,
    "alert.shelve": _KEEPS,
    "node.read": {**_LOOKS, **_JOB},
    "node.admit": {**_OPERATOR, **_JOB},  # a code that makes a box a node
    "node.revoke": _OPERATOR,  # the end of a node's identity
    "node.configure": {**_OPERATOR, **_JOB},
    "node.command": {**_OPERATOR, **_JOB},
    "job.read": {**_STAFF, **_JOB},
    "job.manage": _STAFF,
    "installation.read": {**_STAFF, **_JOB},  # who put up what, where, and who was told of its test; one's own always
    "installation.record": {**_STAFF, **_JOB},
    # --- traps and cameras
    "visit.read": {**_STAFF, **_TRAPS},  # who was at a trap, and when
    "visit.record": {**_STAFF, **_TRAPS},
    "capture.read": {**_STAFF, **_TRAPS},
    "capture.edit": {**_STAFF, **_TRAPS},
    "media.read": {**_LOOKS, **_TRAPS, **_JOB},
    "media.read-uncleared": _OFFICER,  # pictures in which a person may be
    "media.original": _OFFICER,  # a picture's bytes as they came, which may say where it was taken
    "media.clear": _OFFICER,
    "media.erase": _OFFICER,  # one picture, before its time: somebody is in it
    "media.upload": {**_STAFF, "installer": ANY, "farmer": ANY, "hunter": ANY, "node": ANY},
    "picture.confirm": {**_STAFF, **_TRAPS},
    # --- people
    "contact.read": _STAFF,  # names, telephone numbers, who is away
    "contact.manage": _KEEPS,  # whom a family's or a helper's contact leads to sees where people are: those are an officer's
    "page.read": {**_KEEPS, **_TRAPS, "family": PERSON},  # what people were told of together, and who goes
    "page.history": {**_KEEPS, **_TRAPS},  # who was asked over what, and what each said
    "page.answer": {**_KEEPS, **_TRAPS, "family": PERSON},
    "page.answer-for": _KEEPS,  # what somebody who was told said by telephone
    "account.own": {role: ANY for role in ROLES if role != "node"},  # my passkeys, my sessions
    "account.read": _OFFICER,
    "account.manage": _OFFICER,  # who may come in, as what
    "mimamori.read": {**_OFFICER, "family": PERSON},  # the nearest place and its time, never a trail
    "mimamori.manage": _OFFICER,
    "mimamori.log": {**_OFFICER, "family": PERSON},  # who looked where they are
    "tag.enrol": _OFFICER,
    "person.erase": _OFFICER,  # everything that concerns somebody, for good
    "sighting.read": _OFFICER,  # where tags were, who pressed a button
    "search.open": {**_OFFICER, "family": PERSON},  # and what follows of it: to renew and to end it
    "search.read": {**_OFFICER, "family": PERSON, "volunteer": CASE},
    "label.settle": _OFFICER,  # what becomes of a tag that somebody reported
    # --- streets and the town
    "area.read": _LOOKS,
    "area.recount": _STAFF,
    "town.switch": _OFFICER,
}
"""action -> role -> the relation it needs. One page, on purpose."""


PERSON_NODE = "watched"
"""The `node` of every person as a Thing; its `device` is their id."""


class Actor(NamedTuple):
    """Somebody or something that came in; `name` is what the history of an alert says."""

    name: str
    roles: frozenset[str]
    account: str | None = None
    """accounts.id; None: a token of the file, or a node."""
    contact: str | None = None
    """contacts.id, where this is somebody who is told things."""
    groups: frozenset[str] = frozenset()
    """The groups of that contact."""


class Thing(NamedTuple):
    """What an action is done to: a device, a node (`device` None), or what stands for one (`watched`/id, `area`/name)."""

    node: str
    device: str | None = None
    case: str | None = None
    """The search case that it belongs to."""


class World(Protocol):
    """Who is tied to what, at this moment. Asked only where a relation is needed; may read the state database."""

    def devices_of(self, groups: frozenset[str], /) -> Iterable[tuple[str, str]]:
        """The devices (node, device) that one of the groups looks after."""
        ...

    def people_of(self, groups: frozenset[str], /) -> Iterable[str]:
        """The ids of the people whose family is one of the groups."""
        ...

    def nodes_of(self, account: str, /) -> Iterable[str]:
        """The nodes of the jobs of this account that run now."""
        ...

    def cases_of(self, contact: str, /) -> Iterable[str]:
        """The ids of the searches that this contact was asked to help in and that are open."""
        ...


class Strangers:
    """A World in which nobody is tied to anything."""

    def devices_of(self, _: frozenset[str]) -> tuple[()]:
        """None."""
        return ()

    def people_of(self, _: frozenset[str]) -> tuple[()]:
        """None."""
        return ()

    def nodes_of(self, _: str) -> tuple[()]:
        """None."""
        return ()

    def cases_of(self, _: str) -> tuple[()]:
        """None."""
        return ()


class Extent(NamedTuple):
    """All that somebody may do one action to, at one moment. Empty: nothing."""

    everything: bool = False
    things: bool = False
    """All that concerns no person."""
    devices: frozenset[tuple[str, str]] = frozenset()
    """(node, device)"""
    nodes: frozenset[str] = frozenset()
    """With all their devices."""
    people: frozenset[str] = frozenset()
    """watched.id"""
    cases: frozenset[str] = frozenset()
    """search_cases.id"""

    def covers(self, thing: Thing | None) -> bool:
        """Whether it may be done to this; None: to all there is."""
        if self.everything or thing is None:
            return self.everything
        if thing.case is not None and thing.case in self.cases:
            return True
        if thing.node == PERSON_NODE:  # nobody comes to a person by what is called like one
            return thing.device in self.people
        return self.things or thing.node in self.nodes or (thing.node, thing.device) in self.devices


class Forbidden(Exception):
    """This actor may not do this."""

    def __init__(self, said: str, action: str) -> None:
        super().__init__(said)
        self.action = action


def authorize(actor: Actor, action: str, thing: Thing | None, world: World) -> None:
    """Returns when `actor` may do `action` to `thing`; else Forbidden. `thing` None: to all there is, which needs `any`."""
    if not may(actor, action, thing, world):
        raise refusal(actor, action)


def may(actor: Actor, action: str, thing: Thing | None, world: World) -> bool:
    """`authorize` as a question, for answers that leave something out."""
    return extent(actor, action, world).covers(thing)


def extent(actor: Actor, action: str, world: World) -> Extent:
    """All that `actor` may do `action` to: what each of their roles gives, together."""
    relations = _relations(actor, action)
    if ANY in relations:
        return Extent(everything=True)
    return Extent(
        things=THINGS in relations,
        devices=frozenset(world.devices_of(actor.groups)) if GROUP in relations else frozenset(),
        nodes=frozenset(world.nodes_of(actor.account)) if JOB in relations and actor.account is not None else frozenset(),
        people=frozenset(world.people_of(actor.groups)) if PERSON in relations else frozenset(),
        cases=frozenset(world.cases_of(actor.contact)) if CASE in relations and actor.contact is not None else frozenset(),
    )


def has(actor: Actor, action: str) -> bool:
    """Whether there may be anything they may do it to: they may ask for the list, and get what is theirs."""
    return bool(_relations(actor, action))


def refusal(actor: Actor, action: str) -> Forbidden:
    """Says of a thing no more than that it is refused, whether there is one or not."""
    return Forbidden(f"{actor.name} ({', '.join(sorted(actor.roles)) or 'no role'}) may not {action} here", action)


def _relations(actor: Actor, action: str) -> set[Relation]:
    return {relation for role, relation in POLICY.get(action, {}).items() if role in actor.roles}
