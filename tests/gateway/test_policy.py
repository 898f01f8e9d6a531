"""The policy by itself: nobody gets more than the table says, whoever they are, whatever it is, however the world is tied."""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table, Text, create_engine, insert, select

from gateway.api.sift import of_device, of_node
from gateway.mimamori.enrolled import WATCHED
from gateway.policy import PERSON_NODE, POLICY, ROLES, Actor, Forbidden, Strangers, Thing, authorize, extent, has, may

NAMES = ("a", "b", "c", WATCHED)


@dataclass(frozen=True)
class Tied:
    """A World as it was drawn."""

    devices: frozenset[tuple[str, str, str]]  # group, node, device
    people: frozenset[tuple[str, str]]  # group, person
    jobs: frozenset[tuple[str, str]]  # account, node
    cases: frozenset[tuple[str, str]]  # contact, case

    def devices_of(self, groups: frozenset[str]) -> Iterable[tuple[str, str]]:
        return [(node, device) for group, node, device in self.devices if group in groups]

    def people_of(self, groups: frozenset[str]) -> Iterable[str]:
        return [id_ for group, id_ in self.people if group in groups]

    def nodes_of(self, account: str) -> Iterable[str]:
        return [node for who, node in self.jobs if who == account]

    def cases_of(self, contact: str) -> Iterable[str]:
        return [case for who, case in self.cases if who == contact]


def names() -> st.SearchStrategy[str]:
    return st.sampled_from(NAMES)


worlds = st.builds(
    Tied, st.frozensets(st.tuples(names(), names(), names()), max_size=5), st.frozensets(st.tuples(names(), names()), max_size=4),
    st.frozensets(st.tuples(names(), names()), max_size=4), st.frozensets(st.tuples(names(), names()), max_size=4),
)  # fmt: skip
roles = st.frozensets(st.sampled_from([*ROLES, "role-that-came-later"]), max_size=3)
actors = st.builds(Actor, st.just("x"), roles, st.none() | names(), st.none() | names(), st.frozensets(names(), max_size=2))
things = st.none() | st.builds(Thing, names(), st.none() | names(), st.none() | names())


def oracle(actor: Actor, action: str, thing: Thing | None, world: Tied) -> bool:
    """The table read a second time, by another hand: role by role, row by row."""
    for role in actor.roles:
        needed = str(POLICY.get(action, {}).get(role, "nothing"))
        if needed == "any":
            return True
        if thing is None or needed == "nothing":
            continue
        is_person, device = thing.node == "watched", (thing.node, thing.device)
        if needed == "things" and not is_person:
            return True
        if needed == "group" and not is_person and any((group, *device) in world.devices for group in actor.groups):
            return True
        if needed == "person" and is_person and any((group, thing.device) in world.people for group in actor.groups):
            return True
        if needed == "job" and not is_person and (actor.account, thing.node) in world.jobs:
            return True
        if needed == "case" and (actor.contact, thing.case) in world.cases:
            return True
    return False


@given(actor=actors, action=st.sampled_from([*POLICY, "an.action-without-a-row"]), thing=things, world=worlds)
@settings(max_examples=300)
def test_nobody_gets_more_or_less_than_the_table_says(actor: Actor, action: str, thing: Thing | None, world: Tied) -> None:
    assert may(actor, action, thing, world) == oracle(actor, action, thing, world)
    if may(actor, action, thing, world):
        assert has(actor, action)
        authorize(actor, action, thing, world)
    else:
        with pytest.raises(Forbidden):
            authorize(actor, action, thing, world)


_rows = Table("rows", MetaData(), Column("node", Text), Column("device", Text))
_engine = create_engine("sqlite://")
_ALL = [(node, device) for node in NAMES for device in NAMES]


# Those who see a part of something: of all and of nothing there is little to get wrong.
_PARTIAL = [(action, role) for action, who in POLICY.items() for role, relation in who.items() if relation != "any"]


@given(actor=actors, part=st.sampled_from(_PARTIAL), world=worlds)
@settings(max_examples=150)
def test_a_list_holds_exactly_what_could_be_asked_for_one_by_one(actor: Actor, part: tuple[str, str], world: Tied) -> None:
    theirs = extent(actor._replace(roles=frozenset({part[1]})), part[0], world)
    with _engine.begin() as connection:
        _rows.metadata.create_all(connection)
        if connection.execute(select(_rows).limit(1)).first() is None:
            connection.execute(insert(_rows), [{"node": node, "device": device} for node, device in _ALL])
        listed = {(row.node, row.device) for row in connection.execute(select(_rows).where(of_device(theirs, *_rows.c)))}
        nodes = set(connection.scalars(select(_rows.c.node).where(of_node(theirs, _rows.c.node))))
    assert listed == {one for one in _ALL if theirs.covers(Thing(*one))}
    assert nodes - {WATCHED} == {node for node in NAMES if theirs.covers(Thing(node))} - {WATCHED}


def test_a_new_role_without_rows_can_do_nothing_at_all() -> None:
    everything = Tied(*(frozenset(), frozenset(), frozenset({("a", "a")}), frozenset({("a", "a")})))
    new = Actor("x", frozenset({"role-that-came-later"}), "a", "a", frozenset({"a"}))
    for action in POLICY:
        assert not has(new, action)
        assert not any(extent(new, action, everything))


def test_the_table_names_no_role_that_there_is_not() -> None:
    assert {role for who in POLICY.values() for role in who} == ROLES.keys()


def test_what_concerns_where_people_are_is_no_operators() -> None:
    for action in (
        "mimamori.read",
        "mimamori.manage",
        "mimamori.log",
        "sighting.read",
        "search.open",
        "search.read",
        "tag.enrol",
    ):
        assert "operator" not in POLICY[action], action
    operator = Actor("op", frozenset({"operator"}))
    for action in ("alert.read", "alert.acknowledge", "alert.resolve", "alert.shelve", "page.read", "page.answer"):
        assert may(operator, action, Thing("kitayama-03", "trap-11"), Strangers())
        assert not may(operator, action, Thing(PERSON_NODE, "ab" * 8), Strangers())


def test_a_person_is_called_alike_everywhere() -> None:
    assert PERSON_NODE == WATCHED
