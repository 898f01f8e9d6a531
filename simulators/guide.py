"""The demo's guide: five things that happen in the town, where each is seen, who may make it happen now, and what came of it.

A story is words and links. What came of it is what the gateway's API says, read each time anew: nothing here is done because time
has passed or a button was pressed. The page is the desk's own (see simulators.phones), for one person at one machine: what it
hands out (who may come in, the officer's map) is for nobody else.
"""

import html
import importlib.resources
import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote

from simulators.hands import Press
from simulators.kirisawa import FAMILY_MEMBER, FARMER, INSTALLER, OFFICER
from simulators.phones import DeskPage

_PAGE = (importlib.resources.files("simulators") / "guide.html").read_text(encoding="utf-8")
READ_US = 800_000
"""What was read is so long good for everybody who asks."""

Said = Mapping[str, Any]
"""What the API answered: `alerts`, `pages`, `searches`, `areas`, `recounts`, `devices`, `installations`, `accounts`; lists of its
JSON. Pages and searches of interest are whole, with answers, deliveries and sightings."""


class Words(NamedTuple):
    """The same, twice."""

    ja: str
    en: str


class Link(NamedTuple):
    """Where to look. `to`: `/go/<who>`, `/town/<part>`, or `phone:<who>`."""

    words: Words
    to: str


class Button(NamedTuple):
    """What makes it happen now."""

    press: Press
    words: Words


class Step(NamedTuple):
    """One thing that happens."""

    id: str
    title: Words
    story: Words
    links: tuple[Link, ...]
    buttons: tuple[Button, ...] = ()


class Come(NamedTuple):
    """Something that is to come of a step. `beyond`: for who wants to see more; the step is done without."""

    id: str
    done: bool
    words: Words
    beyond: bool = False
    much: float = 0
    """What is done is kept as it was when there was most of it."""


_MAP = Words("町の地図", "the town's map")
STEPS = (
    Step(
        "trap",
        Words("わなが動く", "A trap springs"),
        Words(f"{FARMER}さんの電話に知らせが届きます。〔行きます〕を押すと、誰が行くかが地図に出ます。",
              "The farmer's phone rings. Press 行きます (I go): the map then says who goes."),
        (Link(Words(f"{FARMER}さんの電話", "the farmer's phone"), f"phone:{FARMER}"), Link(_MAP, "/town/alerts")),
        (Button("spring", Words("今すぐ起こす", "spring a trap now")),
         Button("set", Words("見回りをして、わなを戻す", "visit it and set it again")),
         Button("bear", Words("クマがカメラの前に来る", "a bear walks by a camera"))),
    ),
    Step(
        "leave",
        Words("夜、家を出る", "Somebody leaves home at night"),
        Words(f"ハナさんのタグが家を離れ、家族の{FAMILY_MEMBER}さんに知らせが届きます。〔さがす〕を押すと、協力者の電話にも届きます。"
              "タグは観音橋を通り、朝市広場へ向かいます。会えたら〔見つかりました〕を押します。",
              "A tag leaves home and the family is told. Press さがす (search): all who help hear of it, and where the tag was. "
              "Press 見つかりました (found) when you have met her."),
        (Link(Words(f"{FAMILY_MEMBER}さんの電話", "the family's phone"), f"phone:{FAMILY_MEMBER}"),
         Link(Words("中村さんの電話", "a helper's phone"), "phone:中村"),
         Link(Words("家族のページ", "the family's page"), f"/go/{FAMILY_MEMBER}"), Link(_MAP, "/town/alerts")),
        (Button("leave", Words("今すぐ起こす", "leave home now")), Button("home", Words("家に帰す", "bring her home"))),
    ),
    Step(
        "crowd",
        Words("祭りで混み合う", "A festival fills the square"),
        Words("朝市広場に人が集まります。混雑の知らせが役場に届きます。地図の「人の流れ」で数え直すと、推定が正されます。",
              "Counters see the square fill and the office is told. Count heads on the map: the reckoning is set right."),
        (Link(Words("人の流れ", "the areas on the map"), "/town/flow"),
         Link(Words(f"{OFFICER}の電話", "the office's phone"), f"phone:{OFFICER}")),
        (Button("crowd", Words("今すぐ起こす", "let a crowd come now")),),
    ),
    Step(
        "silence",
        Words("親機が黙る", "A box falls silent"),
        Words("烏岩の親機の電源が切れます。わなとカメラは「不明」になります。緑のままにはなりません。",
              "A box loses its power. Its trap and camera turn to 不明 (unknown): silence never looks green."),
        (Link(Words("機器の一覧", "the devices on the map"), "/town/devices"),),
        (Button("silence", Words("今すぐ起こす", "cut its power now")),
         Button("speak", Words("電源を戻す", "give it power again"))),
    ),
    Step(
        "install",
        Words("親機を取り付ける", "An installer puts up a box"),
        Words(f"設置係の{INSTALLER}さんとして入ります。〔機内モードで試す〕で、電波のない山での手順を練習できます。",
              "Come in as the installer. The practice mode walks you through it as on a mountain without any signal."),
        (Link(Words("設置のページ", "the installer's page"), f"/go/{INSTALLER}"),),
    ),
)  # fmt: skip

_OPENS = {OFFICER: "/map", FAMILY_MEMBER: "/mimamori", FARMER: "/mimamori", INSTALLER: "/install"}
"""The page that is for them."""
_PARTS = ("", "alerts", "devices", "flow", "office")


# --- What came of it --------------------------------------------------------------------------------------


_HOME_FIRST = Words("家に戻してから、もう一度出ます。", "She is brought home first, then leaves anew.")


def came(step: str, said: Said, since_us: int, lost: Collection[str]) -> list[Come]:
    """What came of a step since then, of what the API said. `lost`: nodes that were found out of reach since then."""
    return _CAME[step](said, since_us, lost)


def _alert(said: Said, since_us: int, kind: str, summary: str = "", *, new: bool = False) -> dict[str, Any] | None:
    """The newest alert of this kind that fired since, or, where it need not be `new`, is open since before."""
    found = [one for one in said["alerts"] if one["kind"] == kind and one["summary"].startswith(summary) and one["fired_us"]]
    fits = [one for one in found if one["fired_us"] >= since_us or (not new and one["state"] in ("firing", "acknowledged"))]
    return max(fits, key=lambda one: one["fired_us"], default=None)


def _search(said: Said, since_us: int) -> dict[str, Any] | None:
    """The newest search that was under way since."""
    fits = [one for one in said["searches"] if one["ended_us"] is None or one["ended_us"] >= since_us]
    return max(fits, key=lambda one: one["opened_us"], default=None)


def _trap(said: Said, since_us: int, _: Collection[str]) -> list[Come]:
    alert = _alert(said, since_us, "trap", "trap_sprung", new=True)
    pages = [one for one in said["pages"] if alert and any(it["alert"] == alert["id"] for it in one["alerts"])]
    sent = [one for page in pages for one in page["deliveries"] or () if one["sent_us"] and one["channel"] != "webhook"]
    told = sum(1 for one in sent if alert and one["sent_us"] >= alert["fired_us"])
    going = sorted({name for page in pages for name in page["going"]})
    where = f"{alert['place']} {alert['label']}" if alert else ""
    picture = _alert(said, since_us, "camera", new=True)
    seen_at = picture["place"] if picture else ""
    names = "、".join(f"{name}さん" for name in going)
    return [
        Come("fired", alert is not None, _then("知らせが出る", "an alert is out", alert, where)),
        Come("told", told > 0, Words(f"電話へ送る{f'：{told}通' if told else ''}", "phones are told"), much=told),
        Come("going", bool(going), Words(f"誰かが行く{f'：{names}' if going else ''}", "somebody goes"), much=len(going)),
        Come("over", bool(alert and alert["resolved_us"]), Words("見回りが済み、知らせが終わる", "visited: it is over"), True),
        Come("picture", picture is not None, _then("カメラが何かを写す", "a camera saw something", picture, seen_at), True),
    ]


def _leave(said: Said, since_us: int, _: Collection[str]) -> list[Come]:
    alert = _alert(said, since_us, "watched", "left home", new=True)
    search = _search(said, since_us)
    reached = (search or {}).get("reached")
    told = reached["office"] + reached["helpers"] if reached else 0
    of = "：町役場 {office}/{office_all}、協力者 {helpers}/{helpers_all}人".format(**reached) if reached else ""
    seen = max((search or {}).get("sightings", ()), key=lambda one: one["last_us"], default=None)
    place, at = (seen["place"], _local(seen["last_us"])) if seen else ("", None)
    return [
        Come("fired", alert is not None, _then("家族に知らせる", "the family is told", alert)),
        Come("search", search is not None, Words("捜索が始まる", "a search is open")),
        Come("told", told > 0, Words(f"捜索の知らせが届く{of}", f"those who search are reached{f': {told}' if told else ''}"),
             much=told),
        Come("seen", seen is not None,
             Words(f"タグが確認される{f'：{place}・{_clock(at)}' if at else ''}",
                   f"the tag was heard{f', {at:%H:%M}' if at else ''}: not where she is now"),
             much=seen["last_us"] if seen else 0),
        Come("found", bool(search and search["state"] == "found"), Words("見つかる", "found")),
    ]  # fmt: skip


def _crowd(said: Said, since_us: int, _: Collection[str]) -> list[Come]:
    alert = _alert(said, since_us, "area")
    fullest = max(said["areas"], key=lambda one: (one["level"] or 0, one["inside"] or 0), default=None)
    full = fullest if fullest is not None and (fullest["level"] or 0) >= 1 else None
    inside = (full or {}).get("inside")
    now = f"：{full['label']} 推定 {inside:,}人" if full and inside is not None else ""
    counted = max((one for one in said["recounts"] if one["at_us"] >= since_us), key=lambda one: one["at_us"], default=None)
    off = f"：{counted['counted']:,}人" if counted else ""
    return [
        Come("full", full is not None or alert is not None,
             Words(f"人が集まる{now}", f"the square fills{f', some {inside:,} people' if inside else ''}"), much=inside or 0),
        Come("fired", alert is not None, _then("混雑の知らせが出る", "the office is told", alert)),
        Come("counted", counted is not None, Words(f"数え直す{off}", "heads are counted, the reckoning set right"), True),
    ]  # fmt: skip


def _silence(said: Said, since_us: int, lost: Collection[str]) -> list[Come]:
    unknown = [one for one in said["devices"] if one["node"] in lost and one["status"] == "unknown"]
    away = {one["node"] for one in said["devices"] if one["node"] in lost and not one["node_online"]}
    alert = _alert(said, since_us, "node")
    places = "、".join(sorted({one["place"] for one in unknown}))
    back = bool(lost) and not away and not unknown
    return [
        Come(
            "lost",
            bool(lost),
            Words(f"「不明」になる{f'：{places}' if places else ''}", "its devices are unknown"),
            much=len(unknown),
        ),
        Come("fired", alert is not None, _then("通信の知らせが出る", "an alert is out", alert), True),
        Come("back", back, Words("通信が戻る", "they are back")),
    ]


def _install(said: Said, since_us: int, _: Collection[str]) -> list[Come]:
    inside = any("installer" in one["roles"] and one["sessions"] for one in said["accounts"])
    put_up = [one for one in said["installations"] if one["received_us"] >= since_us]
    answered = next((one["answered_by"] for one in put_up if one["state"] == "done"), None)
    who = f"：{answered}さん" if answered else ""
    return [
        Come("inside", inside, Words("設置係として入る（練習は何も送りません）", "in as the installer (practice sends nothing)")),
        Come("recorded", bool(put_up), Words("本番の記録が届く", "a real installation is recorded"), True),
        Come("answered", answered is not None, Words(f"通信テストに答えがある{who}", "somebody answered its test"), True),
    ]


_CAME: Mapping[str, Callable[[Said, int, Collection[str]], list[Come]]] = {
    "trap": _trap, "leave": _leave, "crowd": _crowd, "silence": _silence, "install": _install,
}  # fmt: skip


def _then(ja: str, en: str, alert: Mapping[str, Any] | None, where: str = "") -> Words:
    """With where and when it fired, once it has."""
    if alert is None:
        return Words(ja, en)
    at = _local(alert["fired_us"])
    return Words(f"{ja}：{f'{where}・' if where else ''}{_clock(at)}", f"{en}, {at:%H:%M}")


def _local(t_us: int) -> datetime:
    return datetime.fromtimestamp(t_us / 1e6, UTC) + timedelta(hours=9)


def _clock(at: datetime) -> str:
    return f"{'午前' if at.hour < 12 else '午後'}{at.hour % 12}時{at.minute}分"


def read(get: Callable[[str], Any]) -> Said:
    """Asks the API what came of everything. OSError while the gateway gives no answer."""
    alerts = get("/api/v1/alerts?limit=200")
    pages = [one for one in get("/api/v1/pages?limit=60")["pages"] if one["kind"] == "trap"][:3]
    searches = get("/api/v1/searches?limit=1")["searches"]
    areas = get("/api/v1/areas")["areas"]
    return {
        "now_us": alerts["now_us"],
        "alerts": alerts["alerts"],
        "pages": [get(f"/api/v1/pages/{one['id']}") for one in pages],
        "searches": [get(f"/api/v1/searches/{one['id']}") for one in searches],
        "areas": areas,
        "recounts": [it for one in areas for it in get(f"/api/v1/areas/{quote(one['area'])}/recounts")["recounts"]],
        "devices": get("/api/v1/devices")["devices"],
        "installations": get("/api/v1/installations?limit=20")["installations"],
        "accounts": get("/api/v1/accounts")["accounts"],
    }


# --- On the desk ------------------------------------------------------------------------------------------


def _refused(status: int, why: str) -> DeskPage:
    return DeskPage(status, why, "text/plain; charset=utf-8")


class Gateway(Protocol):
    """The town's, as an officer has it."""

    url: str
    token: str
    accounts: dict[str, str]

    def get(self, path: str) -> Any: ...
    def post(self, path: str, body: Any) -> Any: ...


class Guide:
    """What the desk shows at `/`, and what is pressed there. Any thread may ask."""

    def __init__(
        self, town: Gateway, press: Callable[[Press], float], phone: Mapping[str, str], phones: str, now_us: Callable[[], int]
    ) -> None:
        """`press` makes it happen, in as many seconds as it says; OSError where it can't.

        `phone`: the address of each one's phone; `phones`: of all.
        """
        self._town, self._press, self._phone, self._phones, self._now_us = town, press, phone, phones, now_us
        self._lock = threading.Lock()
        self._since_us = {step.id: now_us() for step in STEPS}
        self._kept: dict[str, dict[str, Come]] = {step.id: {} for step in STEPS}
        self._lost: set[str] = set()
        self._said: Said | None = None
        self._asked_us, self._answers = 0, False

    def page(self, method: str, path: str) -> DeskPage | None:
        """What is answered to this; None: nothing stands there. What is pressed has been seen to come of this page itself."""
        match method, path.partition("?")[0].strip("/").split("/"):
            case "GET", [""]:
                return DeskPage(200, self._html())
            case "GET", ["guide.json"]:
                return DeskPage(200, json.dumps(self.state(), ensure_ascii=False), "application/json")
            case "GET", ["town"]:
                return self._map("")
            case "GET", ["town", part] if part in _PARTS:
                return self._map(part)
            case "GET", ["go", who]:
                return self._go(unquote(who))
            case "POST", ["do", what]:
                return self._do(what)
            case _:
                return None

    def state(self) -> dict[str, Any]:
        """`/guide.json`: `now_us` of the gateway's clock when last heard (null: never), whether it `answers`, the `steps`."""
        with self._lock:
            if not 0 <= self._now_us() - self._asked_us < READ_US:
                self._read()
            steps = [self._step(step) for step in STEPS]
            return {"now_us": self._said["now_us"] if self._said else None, "answers": self._answers, "steps": steps}

    def _read(self) -> None:
        try:
            self._said, self._answers = read(self._town.get), True
        except OSError:  # it is down or restarts, which is no news for the guide: the page says so
            self._answers = False
        self._asked_us = self._now_us()
        if self._said is not None:
            self._lost |= {it["node"] for it in self._said["devices"] if it["node_online"] is False and it["status"] == "unknown"}

    def _step(self, step: Step) -> dict[str, Any]:
        now = came(step.id, self._said, self._since_us[step.id], self._lost) if self._said else []
        kept = self._kept[step.id]
        for one in now:
            if one.done and (one.id not in kept or one.much > kept[one.id].much):
                kept[one.id] = one
        comes = [kept.get(one.id, one) for one in now]
        return {
            "id": step.id,
            "since_us": self._since_us[step.id],
            "done": bool(comes) and all(one.done or one.beyond for one in comes),
            "comes": [
                {"id": one.id, "done": one.done, "beyond": one.beyond, "ja": one.words.ja, "en": one.words.en} for one in comes
            ],
        }

    def _do(self, what: str) -> DeskPage:
        """Presses it. The first button of a step begins the step anew: what came of it before is kept no more."""
        for step in STEPS:
            for number, button in enumerate(step.buttons):
                if button.press == what:
                    with self._lock:
                        if number == 0:
                            self._since_us[step.id] = self._now_us()
                            self._kept[step.id] = {}
                            self._lost = set() if step.id == "silence" else self._lost
                    try:
                        wait_s = self._press(button.press)
                    except OSError as error:
                        return _refused(503, f"{error}. Press again when it is back")
                    except RuntimeError as error:
                        return _refused(502, f"the gateway refused it: {error}")
                    news = _HOME_FIRST._asdict() if wait_s > 0 else {}
                    return DeskPage(200, json.dumps(news, ensure_ascii=False), "application/json")
        return _refused(404, f"there is no button {what!r}")

    def _map(self, part: str) -> DeskPage:
        return DeskPage(303, "", location=f"{self._town.url}/map#token={self._town.token}{f'&part={part}' if part else ''}")

    def _go(self, who: str) -> DeskPage:
        """A new one-time link to come in by, so that none is ever too old."""
        account = self._town.accounts.get(who)
        if account is None:
            return _refused(404, f"{who!r}: nobody of this name may come in")
        try:
            url = self._town.post(f"/accounts/{account}/link", {})["url"]
        except OSError as error:
            return _refused(503, f"{error}. Try again when it is back")
        except RuntimeError as error:
            return _refused(502, f"the gateway made no link for {who}: {error}")
        return DeskPage(303, "", location=f"{url}?next={_OPENS.get(who, '/account')}")

    # The page

    def _html(self) -> str:
        first = self._phone[FARMER]
        steps = "".join(self._card(number, step) for number, step in enumerate(STEPS, 1))
        filled = {"{{steps}}": steps, "{{phones}}": html.escape(self._phones), "{{phone}}": html.escape(first)}
        return re.sub(r"{{\w+}}", lambda found: filled[found[0]], _PAGE)

    def _card(self, number: int, step: Step) -> str:
        links = "".join(f"<li>{self._link(link)}</li>" for link in step.links)
        buttons = "".join(
            f'<button type="button" data-press="{button.press}"{" data-first" if at == 0 else " class=plain"}>'
            f"{_both(button.words)}</button>"
            for at, button in enumerate(step.buttons)
        )
        return (
            f'<section data-step="{step.id}" aria-labelledby="t-{step.id}">'
            f'<h2 id="t-{step.id}"><b aria-hidden="true">{number}</b><span>{_both(step.title)}</span>'
            f'<span class="state"></span></h2>'
            f"<p>{_both(step.story)}</p>"
            f'{f"<div class=buttons>{buttons}</div>" if buttons else ""}<ul class="links">{links}</ul>'
            f'<ul class="comes"></ul></section>'
        )

    def _link(self, link: Link) -> str:
        is_phone = link.to.startswith("phone:")
        to = self._phone[link.to.removeprefix("phone:")] if is_phone else link.to
        opens = 'target="phone"' if is_phone else 'target="_blank" rel="noopener"'
        return f'<a href="{html.escape(quote(to, safe="/:#?&=%"))}" {opens}>{_both(link.words)}</a>'


def _both(words: Words) -> str:
    """Twice; the page shows the one of its language."""
    return f'<span data-in="ja">{html.escape(words.ja)}</span><span data-in="en" lang="en">{html.escape(words.en)}</span>'
