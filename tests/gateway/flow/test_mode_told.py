"""That the town changes its mode is told to the office, and to whom the configuration names, once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.flow.mode import TownMode, tell_people
from gateway.state import tables
from tests.gateway.paged import HOUR_US, MINUTE_US, Paged

TO = ("office", "hunters")
TOLD = ("ito", "suzuki", "yakuba")


@pytest.fixture
def paged(tmp_path: Path) -> Iterator[Paged]:
    with Paged(tmp_path) as opened:
        yield opened


def switch(paged: Paged, mode: TownMode, why: str) -> None:
    with paged.state.write() as connection:
        connection.execute(insert(tables.town_modes).values(mode=mode, since_us=paged.now_us, who="町の当番", why=why))
        tell_people(connection, paged.paging.notices, TO, "町の当番", why, paged.now_us)


def test_who_switched_it_when_and_what_changes_is_told_at_once_and_asks_nothing(paged: Paged) -> None:
    switch(paged, "disaster", "大雨警報")
    assert [who for who, _ in paged.new()] == list(TOLD)
    message = paged.last("yakuba")
    assert message.title == "【災害モード開始】"
    assert message.body.startswith("6月3日 午前6時12分 町の当番が災害モードに切り替えました。人数計は避難所の人数を表します。")
    assert message.body.endswith("理由：大雨警報")
    assert (message.buttons, message.answer_url) == ((), None)
    paged.later(HOUR_US)
    assert paged.new() == []


def test_its_end_is_told_to_whoever_heard_that_it_began(paged: Paged) -> None:
    switch(paged, "disaster", "大雨警報")
    paged.new()
    paged.later(HOUR_US)
    switch(paged, "normal", "解除")
    assert paged.new() == [(who, "over") for who in TOLD]
    assert paged.last("suzuki").title == "【災害モード終了】"
    assert paged.last("suzuki").body.startswith("6月3日 午前7時12分 町の当番が通常のモードに戻しました。")
    assert paged.page()["state"] == "closed"


def test_the_next_disaster_is_told_anew(paged: Paged) -> None:
    for mode in ("disaster", "normal", "disaster"):
        paged.new()
        switch(paged, mode, "大雨警報")
        paged.later(MINUTE_US)
    assert paged.new() == [(who, "alert") for who in TOLD]


def test_an_end_of_which_nobody_heard_the_beginning_is_told_all_the_same(paged: Paged) -> None:
    switch(paged, "normal", "解除")
    assert [who for who, _ in paged.new()] == list(TOLD)
    assert paged.last("yakuba").title == "【災害モード終了】"
    paged.sent()
    paged.later(MINUTE_US)
    assert paged.page()["state"] == "closed"


def test_a_disaster_right_after_it_is_told_on_the_same_page_and_ends_with_its_own_end(paged: Paged) -> None:
    switch(paged, "normal", "解除")
    paged.new()
    switch(paged, "disaster", "大雨警報")
    paged.sent()
    paged.later(HOUR_US)
    assert paged.page()["state"] == "asking"
    switch(paged, "normal", "解除")
    assert len(paged.new()) == 2 * len(TOLD)
    assert paged.last("yakuba").title == "【災害モード終了】"
