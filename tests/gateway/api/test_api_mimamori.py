"""Who is watched over, over HTTP: entered, told by their tag, forgotten; and nobody else's business."""

import json
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select, update

from edge.drivers.ble_tags import BleTagsConfig
from gateway.deployments import Deployment, Deployments
from gateway.mimamori import enrolment
from gateway.mimamori.enrolled import Enrolled
from gateway.nodes.expected import add_tag, newest
from gateway.state import tables
from gateway.state.tables import rule_states
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway

WORD = {"basis": "representative", "given_by": "はるか", "relation": "長女", "entitled_by": "後見人"}
HANA = {"name": "ハナさん", "family": "family-hana", "homes": ["tsubaki/tags"], "consent": WORD}
TAG = "ibeacon:0f0e:1:2"
PLACES = Deployments(
    Deployment(node=node, device="tags", kind="tags", place=place)
    for node, place in (("kominkan", "中央公民館"), ("tsubaki", "椿"))
)


@pytest.fixture
def enrolled() -> Enrolled:
    return Enrolled()


@pytest.fixture
def desk(gateway: Gateway, enrolled: Enrolled) -> TestClient:
    return gateway.client(enrolled=enrolled, deployments=PLACES)


def enter(desk: TestClient) -> str:
    answer = desk.post("/api/v1/watched", json=HANA)
    assert answer.status_code == 201
    return str(answer.json()["id"])


def remember(gateway: Gateway, id_: str, rule: str, **memory: Any) -> None:
    with gateway.state.write() as connection:
        connection.execute(insert(rule_states).values(rule=rule, node="watched", device=id_, body=json.dumps(memory)))


def test_who_is_entered_is_known_to_the_rules_at_once(desk: TestClient, enrolled: Enrolled) -> None:
    id_ = enter(desk)
    assert enrolled.whose(TAG) is None
    answer = desk.put(f"/api/v1/watched/{id_}/tags/{TAG}")
    assert (answer.status_code, answer.json()["tags"]) == (200, [TAG])
    assert enrolled.whose(TAG) == id_
    assert enrolled.at_home(("tsubaki", "tags")) == [id_]


def test_a_tag_never_heard_is_never_and_not_away(desk: TestClient) -> None:
    enter(desk)
    [one] = desk.get("/api/v1/watched?why=巡回").json()["watched"]
    assert (one["state"], one["place"], one["seen_us"], one["age_s"]) == ("never", None, None, None)


def test_where_it_was_heard_last_comes_with_its_age(gateway: Gateway, desk: TestClient) -> None:
    id_ = enter(desk)
    remember(gateway, id_, "not-seen", seen_us=NOW_US - 60 * MINUTE_US, seen_at="tsubaki/tags")
    remember(gateway, id_, "night-exit", seen_us=NOW_US - 12 * MINUTE_US, seen_at="kominkan/tags", alive={"tsubaki/tags": NOW_US})
    [one] = desk.get("/api/v1/watched?why=巡回").json()["watched"]
    assert (one["place"], one["age_s"], one["state"]) == ("中央公民館", 720.0, "away")


def test_a_silent_receiver_is_no_coverage(gateway: Gateway, desk: TestClient) -> None:
    id_ = enter(desk)
    remember(gateway, id_, "night-exit", seen_us=NOW_US - 60 * MINUTE_US, seen_at="tsubaki/tags",
             alive={"tsubaki/tags": NOW_US - 16 * MINUTE_US})  # fmt: skip
    [one] = desk.get("/api/v1/watched?why=巡回").json()["watched"]
    assert one["state"] == "no_coverage"


def test_a_tag_is_one_persons_only(desk: TestClient) -> None:
    hana = enter(desk)
    tome = desk.post("/api/v1/watched", json=HANA | {"name": "トメさん"}).json()["id"]
    desk.put(f"/api/v1/watched/{hana}/tags/{TAG}")
    answer = desk.put(f"/api/v1/watched/{tome}/tags/{TAG}?lang=en")
    assert answer.status_code == 409
    assert "somebody else's" in answer.json()["detail"]
    assert hana not in answer.text


def test_who_is_forgotten_leaves_nothing_behind(gateway: Gateway, desk: TestClient, enrolled: Enrolled) -> None:
    id_ = enter(desk)
    desk.put(f"/api/v1/watched/{id_}/tags/{TAG}")
    remember(gateway, id_, "night-exit", seen_us=NOW_US, seen_at="tsubaki/tags")
    assert desk.delete(f"/api/v1/watched/{id_}").status_code == 204
    assert (enrolled.whose(TAG), enrolled.of(id_)) == (None, None)
    with gateway.state.read() as connection:
        for table in (tables.watched, tables.tags, tables.rule_states):
            assert connection.execute(select(table)).all() == []
    assert desk.delete(f"/api/v1/watched/{id_}").status_code == 404


def test_a_tag_that_is_taken_away_is_nobodys(desk: TestClient, enrolled: Enrolled) -> None:
    id_ = enter(desk)
    desk.put(f"/api/v1/watched/{id_}/tags/{TAG}")
    assert desk.delete(f"/api/v1/watched/{id_}/tags/{TAG}").status_code == 204
    assert enrolled.whose(TAG) is None
    assert desk.delete(f"/api/v1/watched/{id_}/tags/{TAG}").status_code == 404


def test_who_carries_it_next_is_not_shown_where_it_was_with_another(gateway: Gateway, desk: TestClient) -> None:
    hana = enter(desk)
    desk.put(f"/api/v1/watched/{hana}/tags/{TAG}")
    with gateway.state.write() as connection:
        connection.execute(insert(tables.events).values(
            node="tsubaki", device="tags", epoch="e", seq=1, type="tag_entered", class_="sighting", time_us=NOW_US,
            node_time_us=NOW_US, clock_trusted=True, received_us=NOW_US, late=False, body=json.dumps({"tag": TAG, "rssi": -60}),
        ))  # fmt: skip
    remember(gateway, hana, "night-exit", seen_us=NOW_US, seen_at="tsubaki/tags", seen_tag=TAG)
    assert desk.delete(f"/api/v1/watched/{hana}/tags/{TAG}").status_code == 204
    with gateway.state.read() as connection:
        assert [row.body for row in connection.execute(select(tables.events)) if TAG in row.body] == []
        assert "tsubaki" not in str(connection.execute(select(tables.rule_states.c.body)).all())


def test_of_a_rotating_tag_that_is_taken_nodes_are_told_anew_without_it(gateway: Gateway, desk: TestClient) -> None:
    id_ = enter(desk)
    desk.put(f"/api/v1/watched/{id_}/tags/hana-tag")
    add_tag(gateway.state, "hana-tag", bytes(range(16)), 10, 0, NOW_US)
    with gateway.state.read() as connection:
        before = newest(connection)
    assert desk.delete(f"/api/v1/watched/{id_}/tags/hana-tag").status_code == 204
    with gateway.state.read() as connection:
        assert connection.execute(select(tables.rotating_tags)).all() == []
        assert newest(connection) != before


def test_a_tag_is_not_taken_while_its_person_is_searched_for(gateway: Gateway, desk: TestClient, enrolled: Enrolled) -> None:
    id_ = enter(desk)
    desk.put(f"/api/v1/watched/{id_}/tags/{TAG}")
    with gateway.state.write() as connection:
        connection.execute(insert(tables.search_cases).values(
            id="c", watched=id_, state="open", reason="出かけた", opened_us=NOW_US, opened_by="x", step=0, renewed_us=NOW_US,
            cursor=0,
        ))  # fmt: skip
    answer = desk.delete(f"/api/v1/watched/{id_}/tags/{TAG}?lang=en")
    assert (answer.status_code, "searched for" in answer.text) == (409, True)
    assert enrolled.whose(TAG) == id_


def test_what_was_entered_wrongly_can_be_changed(desk: TestClient, enrolled: Enrolled) -> None:
    id_ = enter(desk)
    answer = desk.put(f"/api/v1/watched/{id_}", json=HANA | {"name": "ハナ母さん"})
    assert answer.json()["name"] == "ハナ母さん"
    assert desk.put(f"/api/v1/watched/{'0' * 16}", json=HANA).status_code == 404
    assert desk.put(f"/api/v1/watched/{'0' * 16}/tags/{TAG}").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"homes": []},
        {"homes": ["tsubaki"]},
        {"homes": ["../x/y"]},
        {"family": "Hana's"},
        {"name": "  "},
        {"name": "x" * 41},
        {"age": 81},
    ],
)
def test_what_can_not_be_entered_says_why_and_enters_nothing(desk: TestClient, wrong: dict[str, Any]) -> None:
    assert desk.post("/api/v1/watched", json=HANA | wrong).status_code == 422
    assert desk.get("/api/v1/watched?why=巡回").json()["watched"] == []


def test_what_can_not_be_meant_is_refused_in_plain_words(gateway: Gateway, desk: TestClient) -> None:
    enter(desk)
    with gateway.state.write() as connection:
        connection.execute(insert(tables.devices).values(node="kitayama-03", device="trap-11", kind="reed-trap"))
    tome = HANA | {"name": "トメさん"}
    for wrong, said in (
        (HANA, "somebody of this name is entered already"),
        (tome | {"homes": ["tsubaki/tagz"]}, "tsubaki/tagz is not known here"),
        (tome | {"homes": ["kitayama-03/trap-11"]}, "is a reed-trap, which hears no tags"),
        (tome | {"homes": ["tsubaki/tags", "tsubaki/tags"]}, "one receiver is said twice"),
    ):
        answer = desk.post("/api/v1/watched?lang=en", json=wrong)
        assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text
    assert len(desk.get("/api/v1/watched?places=false").json()["watched"]) == 1


def test_a_receiver_that_its_node_has_announced_is_a_home(gateway: Gateway, desk: TestClient) -> None:
    [driver] = get_args(BleTagsConfig.model_fields["type"].annotation)
    announced = driver.replace("_", "-")  # as edge/cli.py does
    with gateway.state.write() as connection:
        connection.execute(insert(tables.devices).values(node="tsubaki", device="tags", kind=announced))
    assert desk.post("/api/v1/watched", json=HANA).status_code == 201


@pytest.mark.parametrize(("family", "whom"), [("farmers", "a group of farmers"), ("desk", "a group of the office")])
def test_where_somebody_is_is_no_other_groups_business(gateway: Gateway, family: str, whom: str) -> None:
    town = enrolment.Town({"farmers": "farmer", "desk": None, "family-hana": "family"}, "desk", {("tsubaki", "tags")})
    with gateway.state.read() as connection:
        entry = enrolment.Entry("ハナさん", family, ["tsubaki/tags"])
        [said] = enrolment.doubts(connection, entry, town)
        assert whom in str(said)
        for fine in ("family-hana", "family-that-nobody-configured"):
            assert list(enrolment.doubts(connection, entry._replace(family=fine), town)) == []


def test_nobody_but_an_operator_learns_anything(gateway: Gateway, desk: TestClient) -> None:
    id_ = enter(desk)
    for role in ("viewer", "node"):
        client = gateway.client(role)
        assert client.get("/api/v1/watched").status_code == 403
        assert client.post("/api/v1/watched", json=HANA).status_code == 403
        assert client.delete(f"/api/v1/watched/{id_}").status_code == 403


# --- On whose word --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"consent": None},
        {"consent": {}},
        {"consent": {"basis": "missing", "given_by": "はるか"}},
        {"consent": {"basis": "representative", "given_by": "はるか"}},
        {"consent": WORD | {"given_us": NOW_US + 1}},
    ],
)
def test_without_a_word_of_somebody_who_may_give_it_nobody_is_entered(desk: TestClient, wrong: dict[str, Any]) -> None:
    answer = desk.post("/api/v1/watched?lang=en", json=HANA | wrong)
    assert answer.status_code == 422
    assert "consent" in answer.json()["detail"]
    assert desk.get("/api/v1/watched?places=false").json()["watched"] == []


def test_the_word_is_shown_with_who_gave_and_who_entered_it(desk: TestClient) -> None:
    enter(desk)
    [one] = desk.get("/api/v1/watched?places=false").json()["watched"]
    said = one["consent"]
    assert (said["state"], said["given_by"], said["entitled_by"], said["entered_by"]) == (
        "held",
        "はるか",
        "後見人",
        "token:tanaka",
    )


def test_another_word_is_put_on_top_and_said_again_by_the_office(gateway: Gateway, desk: TestClient) -> None:
    id_ = enter(desk)
    answer = desk.post(f"/api/v1/watched/{id_}/consent", json={"basis": "self", "given_by": "ハナ"})
    assert answer.json()["consent"]["basis"] == "self"
    assert desk.post(f"/api/v1/watched/{id_}/consent/confirm").status_code == 200
    with gateway.state.read() as connection:
        assert [row.basis for row in connection.execute(select(tables.consents))] == ["representative", "self", "self"]
    assert desk.post(f"/api/v1/watched/{'0' * 16}/consent", json=WORD).status_code == 404


def test_revoking_erases_and_is_not_had_twice(desk: TestClient, enrolled: Enrolled) -> None:
    id_ = enter(desk)
    desk.put(f"/api/v1/watched/{id_}/tags/{TAG}")
    assert desk.post(f"/api/v1/watched/{id_}/consent/revoke", json={"why": "本人の希望"}).status_code == 204
    assert (enrolled.whose(TAG), enrolled.of(id_)) == (None, None)
    assert desk.post(f"/api/v1/watched/{id_}/consent/revoke", json={}).status_code == 404


def test_a_stopped_tag_and_a_lapsed_consent_are_shown_as_such(gateway: Gateway, desk: TestClient) -> None:
    id_ = enter(desk)
    desk.put(f"/api/v1/watched/{id_}/tags/{TAG}")
    with gateway.state.write() as connection:
        connection.execute(update(tables.tags).values(stopped_us=NOW_US))
    [one] = desk.get("/api/v1/watched?places=false").json()["watched"]
    assert (one["state"], one["stopped"]) == ("stopped", [TAG])
    with gateway.state.write() as connection:
        connection.execute(update(tables.consents).values(lapsed_us=NOW_US))
    [one] = desk.get("/api/v1/watched?places=false").json()["watched"]
    assert (one["state"], one["consent"]["state"]) == ("lapsed", "lapsed")
    assert desk.put(f"/api/v1/watched/{id_}/tags/ibeacon:0f0e:1:3").status_code == 409
