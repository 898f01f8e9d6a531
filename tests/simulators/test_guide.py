"""The demo's guide: a step is done when the gateway says that it happened, and what stands on the desk is for the desk only."""

import urllib.error
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from simulators.guide import STEPS, Guide, came
from simulators.kirisawa import EVERYBODY, FARMER, INSTALLER
from simulators.phones import Phones

BEGAN_US = 1_780_434_720_000_000
LATER_US = BEGAN_US + 5_000_000
"""2026-06-03, twelve past six in Japan."""
PAGE = {"going": [], "alerts": [{"alert": "a-1"}], "deliveries": [{"sent_us": LATER_US, "channel": "line"}]}
HIROBA = {"area": "hiroba", "label": "朝市広場", "inside": 12, "level": 0}
TRAP_6 = {"node": "karasuiwa", "device": "trap-6", "place": "烏岩", "node_online": True, "status": "ok"}


def alert(kind: str, summary: str, **more: Any) -> dict[str, Any]:
    return {"id": "a-1", "kind": kind, "summary": summary, "state": "firing", "fired_us": LATER_US, "resolved_us": None,
            "place": "北尾根", "label": "3番", **more}  # fmt: skip


def said(**more: Any) -> dict[str, Any]:
    """What the API answers in a town where nothing happened."""
    nothing: dict[str, Any] = {"now_us": LATER_US, "alerts": [], "pages": [], "searches": [], "areas": [HIROBA], "recounts": [],
                               "devices": [TRAP_6], "installations": [], "accounts": []}  # fmt: skip
    return nothing | more


def done(step: str, *lost: str, **more: Any) -> list[str]:
    return [one.id for one in came(step, said(**more), BEGAN_US, lost) if one.done]


def words(step: str, come: str, **more: Any) -> str:
    return next(one.words.ja for one in came(step, said(**more), BEGAN_US, ()) if one.id == come)


# --- What came of it


@pytest.mark.parametrize("step", [step.id for step in STEPS])
def test_nothing_is_done_before_it_happened(step: str) -> None:
    assert done(step) == []


def test_a_trap_is_done_when_somebody_goes_and_says_where_when_and_who() -> None:
    sprung = [alert("trap", "trap_sprung")]
    assert done("trap", alerts=sprung) == ["fired"]
    assert done("trap", alerts=sprung, pages=[PAGE]) == ["fired", "told"]
    going = PAGE | {"going": ["田中"]}
    assert done("trap", alerts=sprung, pages=[going]) == ["fired", "told", "going"]
    assert done("trap", alerts=[alert("camera", "detection")]) == ["picture"]
    assert words("trap", "fired", alerts=sprung) == "知らせが出る：北尾根 3番・午前6時12分"
    assert words("trap", "going", alerts=sprung, pages=[going]) == "誰かが行く：田中さん"


def test_what_was_before_it_was_pressed_or_is_about_something_else_does_not_count() -> None:
    assert done("trap", alerts=[alert("trap", "trap_sprung", fired_us=BEGAN_US - 1)]) == []
    assert done("trap", alerts=[alert("trap", "test_alarm")]) == []
    other = PAGE | {"going": ["田中"], "alerts": [{"alert": "a-2"}]}
    assert done("trap", alerts=[alert("trap", "trap_sprung")], pages=[other]) == ["fired"]


def test_a_search_is_done_when_they_are_found() -> None:
    reached = {"office": 0, "office_all": 1, "helpers": 0, "helpers_all": 15}
    case: dict[str, Any] = {"opened_us": LATER_US, "ended_us": None, "state": "open", "reached": reached, "sightings": []}
    left = {"alerts": [alert("watched", "left home")]}
    assert done("leave", searches=[case], **left) == ["fired", "search"]
    case |= {"reached": reached | {"helpers": 12}, "sightings": [{"place": "朝市広場", "last_us": LATER_US, "age_s": 12.4}]}
    assert words("leave", "told", searches=[case]) == "捜索の知らせが届く：町役場 0/1、協力者 12/15人"
    assert words("leave", "seen", searches=[case]) == "タグが確認される：朝市広場・午前6時12分"
    assert "found" not in done("leave", searches=[case], **left)
    case |= {"state": "found", "ended_us": LATER_US}
    assert done("leave", searches=[case], **left) == ["fired", "search", "told", "seen", "found"]
    assert done("leave", searches=[case | {"ended_us": BEGAN_US - 1}]) == [], "the search of an hour ago"


def test_an_alert_that_is_open_already_tells_nobody_twice_and_counts() -> None:
    open_ = alert("area", "crowd", fired_us=BEGAN_US - 1)
    assert done("crowd", alerts=[open_]) == ["full", "fired"]
    assert done("crowd", alerts=[open_ | {"state": "resolved"}]) == []


def test_who_leaves_anew_is_told_anew() -> None:
    assert done("leave", alerts=[alert("watched", "left home", fired_us=BEGAN_US - 1)]) == []


def test_a_full_square_says_how_many_are_reckoned_and_that_they_were_counted() -> None:
    full = {"areas": [HIROBA | {"inside": 1950, "level": 3}], "alerts": [alert("area", "crowd")]}
    assert done("crowd", **full) == ["full", "fired"]
    assert words("crowd", "full", **full) == "人が集まる：朝市広場 推定 1,950人"
    assert done("crowd", recounts=[{"at_us": LATER_US, "counted": 1900}], **full) == ["full", "fired", "counted"]
    assert done("crowd", areas=[HIROBA | {"inside": None, "level": None}]) == [], "nobody ever counted"


def test_a_silent_box_is_back_only_when_its_devices_are_known_again() -> None:
    gone = TRAP_6 | {"node_online": False, "status": "unknown"}
    assert done("silence", "karasuiwa", devices=[gone]) == ["lost"]
    assert done("silence", "karasuiwa", devices=[gone | {"node_online": True}]) == ["lost"]
    assert done("silence", "karasuiwa") == ["lost", "back"]


def test_an_installer_who_is_in_and_whose_test_was_answered() -> None:
    account = {"roles": ["installer"], "sessions": 1}
    assert done("install", accounts=[account | {"sessions": 0}]) == []
    assert done("install", accounts=[account]) == ["inside"]
    record = {"received_us": LATER_US, "state": "done", "answered_by": "田中"}
    assert done("install", accounts=[account], installations=[record]) == ["inside", "recorded", "answered"]


# --- On the desk


class Town:
    """A gateway that answers what the test says."""

    url, token = "http://127.0.0.1:1", "officers-token"
    accounts = {FARMER: "0123456789abcdef"}  # noqa: RUF012 - nobody changes it

    def __init__(self) -> None:
        self.said, self.is_up, self.refuses, self.asked = said(), True, False, list[str]()

    def get(self, path: str) -> Any:
        self.asked.append(path)
        if not self.is_up:
            raise urllib.error.URLError("refused")
        what = path.removeprefix("/api/v1/").split("?")[0].split("/")
        if len(what) == 3:
            return {"recounts": self.said["recounts"]}
        return next(one for one in self.said[what[0]] if one["id"] == what[1]) if len(what) == 2 else self.said

    def post(self, path: str, body: Any) -> Any:
        if not self.is_up:
            raise urllib.error.URLError("refused")
        if self.refuses:
            raise RuntimeError(f"POST {path}: 429 too many links")
        return {"url": f"{self.url}/login/link/{path.split('/')[2]}"}


class Desk:
    """The desk with its guide, and what was pressed there."""

    def __init__(self, phones: Phones) -> None:
        self.town, self.pressed, self.now_us, self.url = Town(), list[str](), BEGAN_US, phones.desk_url
        self.wait_s = 0.0
        pages = {one.name: phones.page(one.name, one.channels[0]) for one in phones.everybody}
        phones.guide = Guide(self.town, self._happens, pages, phones.url, lambda: self.now_us).page

    def _happens(self, what: str) -> float:
        self.pressed.append(what)
        if self.town.refuses:
            raise RuntimeError("POST /visits: 503 the database is locked")
        return self.wait_s

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=headers)

    def press(self, what: str, **headers: str) -> int:
        return httpx.post(f"{self.url}do/{what}", headers=headers).status_code

    def step(self, id_: str) -> dict[str, Any]:
        self.now_us += 1_000_000
        steps: list[dict[str, Any]] = self.get("guide.json").json()["steps"]
        return next(one for one in steps if one["id"] == id_)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Phones(EVERYBODY, now_us=lambda: 0, public_url="http://127.0.0.1:1", desk_port=0) as phones:
        yield Desk(phones)


def own(desk: Desk) -> dict[str, str]:
    return {"Origin": desk.url.rstrip("/")}


def test_the_page_has_every_step_with_its_phones_and_a_button_for_what_can_be_made_to_happen(desk: Desk) -> None:
    page = desk.get("").text
    for step in STEPS:
        assert f'data-step="{step.id}"' in page
        assert all(f'data-press="{button.press}"' in page for button in step.buttons)
    assert "田中さんの電話" in page
    assert "officers-token" not in page
    assert "{{" not in page


def test_a_button_is_pressed_on_the_desks_own_page_only(desk: Desk) -> None:
    assert desk.press("spring") == 403
    assert desk.press("spring", Origin="https://elsewhere.example") == 403
    assert desk.press("spring", **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert desk.press("spring", Host="elsewhere.example", Origin="http://elsewhere.example") == 403
    assert desk.pressed == []
    assert desk.press("spring", **own(desk)) == 200
    assert desk.press("nothing", **own(desk)) == 404
    assert desk.pressed == ["spring"]


def test_a_page_under_another_name_for_this_machine_sees_nothing(desk: Desk) -> None:
    for path in ("", "guide.json", "town", "phones"):
        assert desk.get(path, Host="elsewhere.example").status_code == 403


def test_pressing_begins_a_step_anew_and_makes_nothing_done(desk: Desk) -> None:
    desk.town.said = said(alerts=[alert("trap", "trap_sprung")], pages=[PAGE | {"id": "p-1", "kind": "trap", "going": ["田中"]}])
    assert desk.step("trap")["done"]
    desk.now_us = LATER_US + 1
    assert desk.press("spring", **own(desk)) == 200
    assert not desk.step("trap")["done"]


def test_a_box_that_was_silent_is_remembered_until_the_step_begins_anew(desk: Desk) -> None:
    desk.town.said = said(devices=[TRAP_6 | {"node_online": False, "status": "unknown"}])
    assert [one["done"] for one in desk.step("silence")["comes"]] == [True, False, False]
    desk.town.said = said()
    assert desk.step("silence")["done"]
    desk.press("silence", **own(desk))
    assert not desk.step("silence")["done"]


def ticked(desk: Desk, step: str) -> dict[str, str]:
    return {one["id"]: one["ja"] for one in desk.step(step)["comes"] if one["done"]}


def test_what_came_stays_as_it_was_when_there_was_most_of_it_until_the_step_is_pressed(desk: Desk) -> None:
    for level, inside in ((1, 700), (3, 1950), (2, 900), (0, 12)):
        desk.town.said = said(areas=[HIROBA | {"level": level, "inside": inside}])
        desk.step("crowd")
    assert ticked(desk, "crowd") == {"full": "人が集まる：朝市広場 推定 1,950人"}
    desk.press("leave", **own(desk))
    assert ticked(desk, "crowd"), "another step's press is not this one's"
    desk.press("crowd", **own(desk))
    assert ticked(desk, "crowd") == {}


def test_a_search_that_is_over_and_out_of_the_list_stays_ticked(desk: Desk) -> None:
    reached = {"office": 1, "office_all": 1, "helpers": 0, "helpers_all": 15}
    case = {"id": "s-1", "opened_us": LATER_US, "ended_us": LATER_US, "state": "found", "reached": reached,
            "sightings": [{"place": "朝市広場", "last_us": LATER_US, "age_s": 12.4}]}  # fmt: skip
    desk.town.said = said(alerts=[alert("watched", "left home")], searches=[case])
    before = ticked(desk, "leave")
    assert list(before) == ["fired", "search", "told", "seen", "found"]
    desk.town.said = said()
    assert ticked(desk, "leave") == before


def test_a_press_that_brings_her_home_first_says_so(desk: Desk) -> None:
    assert httpx.post(f"{desk.url}do/leave", headers=own(desk)).json() == {}
    desk.wait_s = 4.0
    assert httpx.post(f"{desk.url}do/leave", headers=own(desk)).json()["ja"] == "家に戻してから、もう一度出ます。"


def test_the_page_is_the_same_under_each_language(desk: Desk) -> None:
    assert desk.get("?lang=en").text == desk.get("").text
    assert 'data-in="en"' in desk.get("?lang=en").text


def test_many_windows_ask_the_gateway_once(desk: Desk) -> None:
    desk.step("trap")
    asked = len(desk.town.asked)
    desk.get("guide.json")
    assert len(desk.town.asked) == asked


def test_a_gateway_that_is_down_is_said_and_what_was_known_stays(desk: Desk) -> None:
    desk.town.said = said(accounts=[{"roles": ["installer"], "sessions": 1}])
    assert desk.step("install")["done"]
    desk.town.is_up = False
    assert desk.step("install")["done"]
    assert desk.get("guide.json").json()["answers"] is False


def test_who_goes_in_as_somebody_gets_a_new_link_each_time(desk: Desk) -> None:
    answer = desk.get(f"go/{FARMER}")
    assert (answer.status_code, answer.headers["Location"]) == (
        303,
        "http://127.0.0.1:1/login/link/0123456789abcdef?next=/mimamori",
    )
    assert desk.get(f"go/{INSTALLER}").status_code == 404
    desk.town.is_up = False
    assert desk.get(f"go/{FARMER}").status_code == 503
    desk.town.is_up, desk.town.refuses = True, True
    answer = desk.get(f"go/{FARMER}")
    assert (answer.status_code, "too many links" in answer.text) == (502, True), "the browser is told, too, why there is none"
    assert desk.press("set", **own(desk)) == 502


def test_the_map_opens_with_the_officers_token_at_the_part_that_a_step_names(desk: Desk) -> None:
    assert desk.get("town").headers["Location"] == "http://127.0.0.1:1/map#token=officers-token"
    assert desk.get("town/flow").headers["Location"] == "http://127.0.0.1:1/map#token=officers-token&part=flow"
    assert desk.get("town/elsewhere").status_code == 404
