"""The demo: three scenes of the town's life in time-lapse, told as they happen, and counted at the end.

A mountain night (a trap, a camera), a resident who leaves home at half past two, a festival evening. Everything but the world is
real: see simulators.town. Told on stderr when stdout carries JSON.
"""

import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from simulators import kirisawa
from simulators.audit import alerts_by_kind, audit
from simulators.broker import mosquitto, nats
from simulators.guide import Guide
from simulators.hands import Hands, Press
from simulators.line import Shown
from simulators.phone import Phone, Received
from simulators.phones import Got, Phones
from simulators.ports import free_port
from simulators.town import Town
from simulators.world import DAY_US, HOUR_US, MINUTE_US, OPENED_US, SECOND_US, Happening, World

LAPSE = 60  # one second here is a minute there
BEAT_S = 0.25
LOOK_S = 1.0
SCENE_S = 60.0
AT_HOME_US = OPENED_US + HOUR_US // 2
"""Half past midnight: everybody's tag is at home."""


PATIENCE_S = {"田中": 3.0, "佐藤": 4.0, "鈴木": 3.0, "山田": 3.0, "マリア": 4.0, "中村": 5.0, "役場の係": 6.0}
"""So long each thinks before answering by themselves; who sits at the desk is mostly faster."""
CANNOT = frozenset({"佐藤"})
TEST_ALARM = "【通信テスト】"
"""So a test alarm begins, the day's too. It may not be forgotten when something else comes after it."""
_YES = ("確認しました", "かくにんしました", "一緒にいます", "いっしょに います", "行きます", "届きました", "見つかりました")


class Scene(NamedTuple):
    """A part of the town's life worth seeing."""

    title: str
    start_us: int
    someone_leaves: bool = False
    """Else everybody who is watched over sits at home: one story at a time."""


def scenes(world: World) -> Iterator[Scene]:
    """Scenes in the order of the town's time, for ever: a night on the mountain, a night exit, a festival."""
    day_us = OPENED_US
    while True:
        sprung = next((h.t_us for h in _days(world, day_us) if h.kind == "trap_sprung"), day_us)
        yield Scene("山の夜 — a night on the mountain", sprung - 2 * MINUTE_US)
        wanderers = {tag.name for tag in world.wanderers()}
        homes = {node for tag, node in world.residents() if tag.name in wanderers}
        left = next(
            h.t_us
            for h in _days(world, sprung)
            if h.kind == "tag_left" and h.what in wanderers and h.node in homes and (h.t_us + 9 * HOUR_US) % DAY_US < 4 * HOUR_US
        )
        yield Scene("午前二時半 — somebody leaves home", left - MINUTE_US, someone_leaves=True)
        begin, end = world.festival(left)
        if begin < left:
            begin, end = world.festival(end + DAY_US)
        yield Scene("祭りの夕べ — the festival evening", begin + HOUR_US)
        day_us = end


def _days(world: World, start_us: int) -> Iterator[Happening]:
    for day in range(60):
        yield from world.happenings(start_us + day * DAY_US, start_us + (day + 1) * DAY_US)


class Habits:
    """What people do when nobody at the desk does it for them: they answer what asks them, after a while, once."""

    def __init__(self, phones: Phones, say: Callable[[str], None]) -> None:
        self._phones, self._say = phones, say
        self._since: dict[tuple[str, str], float] = {}

    def look(self, now_s: float, *, held: bool = False) -> None:
        """Answers what was long enough on a phone and is still the last word there, and the day's test wherever it stands.

        `held`: somebody at the desk sees to it themselves now.
        """
        for one in self._phones.everybody:
            for channel in one.channels:
                for asked in self._asks(one.name, channel):
                    since_s = self._since.setdefault((one.name, asked), now_s)
                    if not held and now_s - since_s >= PATIENCE_S[one.name]:
                        self._answer(one.name, channel, asked)
                        self._since[one.name, asked] = float("inf")

    def make_the_round(self, town: Town) -> None:
        """Whoever went stands before the traps that sprang, and says so."""
        for where in kirisawa.make_the_round(town):
            self._say(f"[green]   {kirisawa.FARMER}: {escape(where)} 見回りをしました（捕獲）[/green]")

    def _asks(self, name: str, channel: str) -> list[str]:
        """What names the questions that nobody has answered."""
        if channel == "line":
            chat = self._phones.line.phone(name).chat
            newest = [_named(chat[-1])] if chat and any(it.type == "postback" for it in chat[-1].actions) else []
            tests = [
                _named(one)
                for at, one in enumerate(chat[:-1], 1)
                if one.title.startswith(TEST_ALARM) and not any(it.how == "said" and it.body in one.labels for it in chat[at:])
            ]
            return tests + newest
        try:
            return [self._phones.link(name) if channel == "mail" else self._phones.call(name).sid]
        except LookupError:
            return []

    def _answer(self, name: str, channel: str, asked: str) -> None:
        yes = name not in CANNOT
        if channel == "line":
            shown = next(one for one in self._phones.line.phone(name).chat if _named(one) == asked)
            buttons = [action for action in shown.actions if action.type == "postback"]
            liked = [action for action in buttons if (action.label in _YES) == yes]
            chosen = (liked or buttons)[0]
            self._phones.line.press(name, chosen)
            said = chosen.label
        elif channel == "mail":
            said = "行きます" if yes else "行けません"
            answer = {"answer": "going" if yes else "cannot"}
            httpx.post(self._phones.link(name), data=answer, timeout=10, trust_env=False)
        else:
            call, key = self._phones.call(name), "1" if yes else "2"
            if call.status == "ringing":
                self._phones.twilio.take(call)
            self._phones.twilio.press(call, key)
            said = f"takes the call and presses {key}"
        self._say(f"[green]   {escape(name)}: {escape(said)}[/green]")


def _named(shown: Shown) -> str:
    return shown.id or f"{shown.at_us}"


class SceneTime:
    """How far a scene has come: the desk's seconds without those in which it was held."""

    def __init__(self, now_s: float) -> None:
        self._before_s, self.played_s = now_s, 0.0

    def pass_(self, now_s: float, *, held: bool) -> float:
        """It is now so late; the seconds played."""
        if not held:
            self.played_s += now_s - self._before_s
        self._before_s = now_s
        return self.played_s


class Narrator:
    """Tells what happens, in lines as wide as the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._told = 0

    def say(self, text: str, *, whole: bool = False) -> None:
        """The seconds since the beginning, and beside them the text. `whole`: not broken where it is too long, as an address."""
        when = f"[dim]{time.monotonic() - self._began:5.1f} s[/dim]  "
        room = self._console.width - len("  0.0 s  ")
        said = Text.from_markup(text)
        lines = [said] if whole else said.wrap(self._console, room)
        for number, line in enumerate(lines):
            line.rstrip()
            self._console.print(Text.from_markup(when if number == 0 else " " * 9) + line, highlight=False, soft_wrap=True)

    def people(self, news: Iterable[Got]) -> None:
        """What people got since the last look."""
        for got in news:
            words = " ".join(f"{got.title} {got.body.removeprefix(got.title)}".split())
            self.say(f"[bold]📱 {escape(got.to)}[/bold] ({got.channel}) {escape(words)}")

    def phone(self, received: tuple[Received, ...]) -> None:
        """What reached the phone since the last look."""
        for one in received[self._told :]:
            message = one.message
            style = {"critical": "bold red", "warning": "yellow"}.get(message["severity"], "cyan")
            self.say(f"[{style}]📱 {escape(message['title'])}[/{style}] {escape(message['body'])}")
        self._told = len(received)


class Line:
    """The demo's line to the gateway, which somebody at the desk may kill: says once that it is dead, and once that it is back.

    What is to be done over it waits until then; the town lives on meanwhile.
    """

    def __init__(self, town: Town, tell: Narrator) -> None:
        self._town, self._tell = town, tell
        self._looks_s, self._dead = float("-inf"), False

    def is_open(self, now_s: float) -> bool:
        """Whether the gateway answers: looked at each second."""
        if now_s >= self._looks_s:
            self._looks_s = now_s + LOOK_S
            self.over(lambda: self._town.get("/api/v1/health"))
        return not self._dead

    def over(self, act: Callable[[], object]) -> bool:
        """Does it. False: it could not be done, or not to its end; do it again when the line is open."""
        try:
            act()
        except (OSError, httpx.TransportError):
            if not self._dead:
                self._tell.say("[bold yellow]the gateway gives no answer[/bold yellow]: the town goes on and keeps what it "
                               "records, and its people wait. To start it again:")  # fmt: skip
                self._tell.say(escape(" ".join(self._town.gateway.argv)), whole=True)
            self._dead = True
        else:
            if self._dead:
                self._tell.say("[bold green]the gateway is back[/bold green]")
            self._dead = False
        return not self._dead


def run(
    for_s: float | None,
    *,
    as_json: bool,
    broker_name: str,
    seed: int,
    folder: Path | None,
    quiet_people: bool = False,
    opens_browser: bool = False,
) -> int:
    """Runs the demo for so many seconds, or until interrupted. The exit code: 0 when nothing was lost or doubled.

    `opens_browser`: shows the map in one, where somebody sits at a terminal with a screen.
    """
    console = Console(stderr=as_json)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="satomori-") as temporary:
        home = folder or Path(temporary)
        world = World(seed)
        broker = (nats if broker_name == "nats" else mosquitto)(home / "broker", authority=home / "authority")
        api_port = free_port()
        url = f"http://127.0.0.1:{api_port}"
        phones = Phones(
            kirisawa.EVERYBODY, now_us=lambda: time.time_ns() // 1000, public_url=url, webhook=f"{url}/hooks/line",
            gateway_url=url, desk_port=0,
        )  # fmt: skip
        with Phone(free_port()) as phone, phones:
            tell = Narrator(console)
            tell.say("[bold]霧沢町 — satomori on a desk[/bold]: broker, gateway and edges are starting")
            town = Town(
                home / "town",
                broker,
                phone,
                world,
                rules=kirisawa.RULES,
                api_port=api_port,
                phones=phones,
                keepers=kirisawa.KEEPERS,
                sections=kirisawa.SECTIONS | _canary(time.time()) | _links(phones),
            )
            began_us = time.time_ns() // 1000
            kirisawa.remember(town, began_us)
            with town:
                phones.join_all(town.post)
                town.accounts = kirisawa.enter(town)
                town.hands = Hands(world, [edge.node for edge in town.edges], time.monotonic)
                phones.guide = _guide(town, town.hands, phones).page
                the_map = f"{town.url}/map#token={town.token}"
                tell.say(f"the guide:   {phones.desk_url}", whole=True)
                tell.say(f"the map:     {the_map}", whole=True)
                tell.say(f"the phones:  {phones.url}", whole=True)
                if opens_browser and sys.stdout.isatty() and _has_display():
                    webbrowser.open(the_map)
                names = "、".join(one.name for one in kirisawa.EVERYBODY)
                tell.say(f"{names} have joined, each has answered a test; buttons on the phones' page really answer")
                list(phones.news())
                habits = None if quiet_people else Habits(phones, tell.say)
                devices = sum(len(edge.node.devices) for edge in town.edges)
                tell.say(f"{len(town.edges)} nodes, {devices} devices, broker {broker.name}; a second here is a minute there")
                ended_us = _play(town, phones, tell, habits, for_s, stop)
                tell.say("the day is over: waiting until every record is acknowledged")
                town.hands.let_go()
                town.settle(meanwhile=lambda: town.play(ended_us, ended_us, tags_us=AT_HOME_US))
                town.end_edges()
                tell.people(phones.news())
                answers = town.answers()
            result = _result(town, phone, devices, began_us) | {
                "answers": answers,
                "notifications_by_channel": {"webhook": len(phone.times()), **phones.count()},
            }
    good = result["records_lost"] == 0 and result["duplicates_stored"] == 0
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _summary(tell, result)
    return 0 if good else 1


def _links(phones: Phones) -> dict[str, Any]:
    """What stands at the foot of the town's map."""
    return {"map": {"link": [{"label": "三分の案内", "url": phones.desk_url}, {"label": "机の上の電話", "url": phones.url}]}}


def _guide(town: Town, hands: Hands, phones: Phones) -> Guide:
    """The guide. Who sets a trap again has been there, and says so."""

    def press(what: Press) -> float:
        wait_s = hands.press(what)
        if what == "set":
            kirisawa.make_the_round(town)
        return wait_s

    pages = {one.name: phones.page(one.name, one.channels[0]) for one in phones.everybody}
    return Guide(town, press, pages, phones.url, lambda: time.time_ns() // 1000)


def _has_display() -> bool:
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _canary(now_s: float) -> dict[str, Any]:
    """The day's test alarm at a full minute after everybody has joined: within 20 to 80 seconds."""
    at = datetime.fromtimestamp(now_s + 80, UTC) + timedelta(hours=9)
    return {"canary": {"at": f"{at:%H:%M}", "to": kirisawa.OFFICE, "within": "10m"}}


def _play(town: Town, phones: Phones, tell: Narrator, habits: Habits | None, for_s: float | None, stop: threading.Event) -> int:
    """Plays scene after scene until the time is over; the town's time then. Stands still while the hands hold it."""
    ends = None if for_s is None else time.monotonic() + for_s
    scene_s = SCENE_S if for_s is None else min(SCENE_S, for_s / 3)
    before_us = OPENED_US
    line = Line(town, tell)
    for scene in scenes(town.world):
        if stop.is_set() or (ends is not None and time.monotonic() >= ends):
            break
        tell.say(f"[bold]{scene.title}[/bold]  ({_local(scene.start_us)})")
        at = SceneTime(time.monotonic())
        town.skip(before_us, scene.start_us)
        before_us = scene.start_us
        round_is_due = habits is not None
        while not stop.is_set() and at.played_s < scene_s and (ends is None or time.monotonic() < ends):
            held = town.hands is not None and town.hands.held()
            now_us = scene.start_us + int(at.pass_(time.monotonic(), held=held) * LAPSE * SECOND_US)
            town.play(before_us, now_us, tags_us=None if scene.someone_leaves else AT_HOME_US)
            before_us = now_us
            tell.people(phones.news())
            if line.is_open(time.monotonic()) and habits is not None:
                round_is_due = round_is_due and not line.over(lambda: habits.make_the_round(town))
                line.over(lambda held=held: habits.look(time.monotonic(), held=held))  # type: ignore[misc]
            stop.wait(BEAT_S)
    return before_us


def _local(t_us: int) -> str:
    return f"{datetime.fromtimestamp(t_us / 1e6, UTC) + timedelta(hours=9):%Y-%m-%d %H:%M}"


def _result(town: Town, phone: Phone, devices: int, began_us: int) -> dict[str, Any]:
    """The demo's JSON."""
    found = audit(town, began_us)
    shown = phone.seen()
    waits = sorted(
        (one.at_us - datetime.fromisoformat(one.message["event_time"]).timestamp() * 1e6) / 1000
        for one in shown
        if one.message.get("message") == "alert" and one.message["rule"] == "trap-sprung"
        if not one.message["late"]
    )
    return {
        "nodes": len(town.edges),
        "devices": devices,
        "records_produced": found.produced,
        "records_stored": found.stored,
        "records_lost": found.lost,
        "duplicates_stored": found.duplicated,
        "quarantined": found.quarantined,
        "alerts": alerts_by_kind(town),
        "notifications_delivered": len(phone.times()),
        "latency_ms": {
            "event_to_phone_p50": round(statistics.median(waits), 1) if waits else None,
            "event_to_phone_p95": round(waits[min(int(len(waits) * 0.95), len(waits) - 1)], 1) if waits else None,
        },
    }


def _summary(tell: Narrator, result: dict[str, Any]) -> None:
    tell.say("[bold]counted at both ends[/bold]")
    for name, value in result.items():
        tell.say(f"  {name:24} {_words(value)}")


def _words(value: object) -> str:
    """`camera 3, trap 2` of what the JSON holds as an object."""
    if isinstance(value, dict):
        return ", ".join(f"{name.removeprefix('event_to_phone_')} {_words(inner)}" for name, inner in value.items()) or "none"
    return "unknown" if value is None else str(value)
