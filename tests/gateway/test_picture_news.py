"""Text goes before the picture. Who was told without it hears once that it is there, and nobody is woken by that."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.alerting.lifecycle import Alert
from gateway.media import MediaShelf
from gateway.notify.message import Message
from gateway.state import tables
from tests.gateway.paged import HOUR_US, MINUTE_US, SECOND_US, Paged

ROUTE = {"to": "farmers"}
BEAR, BOAR = b"\xff\xd8\xff\xda\0\2 a bear \xff\xd9", b"\xff\xd8\xff\xda\0\2 a boar \xff\xd9"
TOLD = [("sato", "picture"), ("tanaka", "picture")]


@pytest.fixture
def paged(tmp_path: Path) -> Iterator[Paged]:
    with Paged(tmp_path, ROUTE) as opened:
        yield opened


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def seen(paged: Paged, content: bytes = BEAR, device: str = "cam-1", says: str = "animal", **more: Any) -> Alert:
    """A camera's alert, whose picture is still on its way."""
    with paged.state.write() as connection:
        row = {"sha256": sha256(content), "node": "kitayama-03", "device": device, "content": says, "withheld": False}
        connection.execute(insert(tables.pictures), row | {"captured_us": paged.now_us})
    kind = {"kind": "camera", "rule": "seen", "summary": "detection", **more}
    alert = paged.fire(device, media=sha256(content), species="bear", pictures=1, **kind)
    paged.tick()
    return alert


def arrives(paged: Paged, content: bytes = BEAR, content_type: str = "image/jpeg") -> None:
    shelf = MediaShelf(paged.folder / "media", paged.state, lambda: paged.now_us, reserve_mib=0)
    shelf.keep(sha256(content), content, content_type)


def told_without_it(paged: Paged) -> None:
    paged.sent()
    paged.new()
    paged.later(MINUTE_US)
    assert paged.new() == []


def test_who_was_told_before_the_picture_came_hears_once_that_it_is_there(paged: Paged) -> None:
    paged.teller._answer_url = lambda id_, _: f"https://gateway.example.jp/a/{id_}"
    seen(paged)
    told_without_it(paged)
    arrives(paged)
    paged.later(SECOND_US)
    assert paged.new() == TOLD
    message = paged.last("tanaka")
    assert message.title == "【写真が届きました】kitayama-03 cam-1"
    assert message.body == "6月3日 午前6時12分の写真です。「写真」を押すと見られます。"
    assert [link.url for link in message.links if link.label == "写真"] == [f"https://gateway.example.jp/a/{message.id}"]
    assert message.buttons == ()
    paged.later(HOUR_US)
    assert paged.new() == []


def test_it_wakes_nobody_also_where_the_alert_did(paged: Paged) -> None:
    paged.quiet("tanaka", "21:00", "07:00")  # it is 06:12
    seen(paged, severity="critical")
    told_without_it(paged)
    arrives(paged)
    paged.later(SECOND_US)
    rows = {row["contact"]: row for row in paged.ledger() if row["kind"] == "picture"}
    assert {Message.model_validate_json(row["body"]).severity for row in rows.values()} == {"info"}
    assert rows["sato"]["due_us"] == paged.now_us
    assert rows["tanaka"]["due_us"] == paged.now_us - MINUTE_US - SECOND_US + 48 * MINUTE_US, "when the quiet hours end"
    assert {(row["channel"], row["only_by"], row["failover_us"]) for row in rows.values()} == {("line", None, None)}


def test_who_has_a_telephone_only_is_not_rung_for_it(paged: Paged) -> None:
    with paged.state.write() as connection:
        mine = tables.addresses.c.id == "tanaka-line"
        connection.execute(update(tables.addresses).where(mine).values(state="unreachable"))
    seen(paged)
    told_without_it(paged)
    arrives(paged)
    paged.later(SECOND_US)
    assert paged.new() == [("sato", "picture")]


def test_a_picture_that_was_there_already_is_no_news(paged: Paged) -> None:
    arrives(paged)
    paged.later(SECOND_US)
    seen(paged)
    told_without_it(paged)


def test_a_message_that_was_held_up_until_the_picture_was_there_leads_to_it_by_itself(paged: Paged) -> None:
    seen(paged)
    arrives(paged)
    paged.later(SECOND_US)
    told_without_it(paged)


@pytest.mark.parametrize("says", ["person_or_vehicle", "unsure", "unclassified"])
def test_of_a_picture_that_not_everybody_may_see_nothing_is_said(paged: Paged, says: str) -> None:
    seen(paged, says=says)
    told_without_it(paged)
    arrives(paged)
    paged.later(MINUTE_US)
    assert paged.new() == []


def test_a_page_of_several_pictures_says_it_once(tmp_path: Path) -> None:
    with Paged(tmp_path, {**ROUTE, "group_by": ["kind"]}) as paged:
        seen(paged)
        seen(paged, BOAR, "cam-2")
        paged.later(HOUR_US)
        paged.sent()
        paged.new()
        for content in (BEAR, BOAR):
            arrives(paged, content)
            paged.later(MINUTE_US)
        assert paged.new() == TOLD


def test_what_is_over_is_told_no_more_of(paged: Paged) -> None:
    alert = seen(paged)
    told_without_it(paged)
    paged.becomes(alert, "resolved", why="quiet")
    paged.tick()
    paged.new()
    arrives(paged)
    paged.later(MINUTE_US)
    assert paged.new() == []


def test_a_kill_between_the_picture_and_the_word_of_it_neither_loses_nor_repeats_it(paged: Paged) -> None:
    seen(paged)
    told_without_it(paged)
    arrives(paged)
    paged.restart()
    paged.later(SECOND_US)
    assert paged.new() == TOLD
    with paged.state.write() as connection:  # as if the word had been queued, and that it was were forgotten
        memory = json.loads(paged.page()["memory"])
        assert memory.pop("pictured")
        connection.execute(update(tables.pages).values(memory=json.dumps(memory), changed=True))
    paged.restart()
    paged.later(MINUTE_US)
    assert json.loads(paged.page()["memory"])["pictured"], "it was looked at again"
    assert paged.new() == []


def test_it_asks_nobody_and_starts_nothing(tmp_path: Path) -> None:
    with Paged(tmp_path, {"steps": [{"to": "farmers"}, {"after": "10m", "to": "hunters"}], "needed": 1}) as paged:
        seen(paged, kind="trap", summary="trap_sprung", severity="critical")
        told_without_it(paged)
        before = paged.page()
        arrives(paged)
        paged.later(SECOND_US)
        assert paged.new() == TOLD
        assert paged.page()["due_us"] == before["due_us"]
        paged.answer("tanaka", "cannot")
        paged.new()
        paged.later(9 * MINUTE_US)
        assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]
