"""The demo: three scenes of the town's life in time-lapse, told as they happen, and counted at the end.

A mountain night (a trap, a camera), a resident who leaves home at half past two, a festival evening. Everything but the world is
real: see simulators.town. Told on stderr when stdout carries JSON.
"""

import json
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from simulators.audit import audit
from simulators.broker import mosquitto, nats
from simulators.phone import Phone, Received
from simulators.phones import Got, Phones, Someone
from simulators.ports import free_port
from simulators.town import Town
from simulators.world import DAY_US, HOUR_US, MINUTE_US, OPENED_US, SECOND_US, Happening, World

LAPSE = 60  # one second here is a minute there
BEAT_S = 0.25
SCENE_S = 30.0


FARMERS, HUNTERS, OFFICE, FAMILY = "farmers-kitayama", "hunters", "office", "family-hana"
EVERYBODY = (
    Someone("田中", (FARMERS,)),
    Someone("佐藤", (FARMERS,), ("mail",)),
    Someone("鈴木", (HUNTERS,)),
    Someone("山田", (HUNTERS,), ("voice",)),
    Someone("マリア", (FAMILY,), language="ja-easy"),
    Someone("役場の係", (OFFICE,)),
)
PEOPLE: dict[str, Any] = {
    "people": {"town": "霧沢町", "office": OFFICE, "office_phone": "050-0000-0001"},
    "group": {
        FARMERS: {"label": "北山のわな番"},
        HUNTERS: {"label": "猟友会"},
        OFFICE: {"label": "農林課"},
        FAMILY: {"label": "ハナさんの家族", "language": "ja-easy"},
    },
    # A second here is a minute there: what is ten minutes in the field is ten seconds.
    "route": [
        {"name": "traps", "match": {"kind": "trap"}, "needed": 2, "result_within": "30s", "tell_end": True,
         "steps": [{"to": ["phone", FARMERS]}, {"to": [HUNTERS], "after": "5s"}, {"to": [OFFICE], "after": "12s"}]},
        {"name": "homes", "match": {"kind": "home"}, "needed": 1, "result_within": "30s",
         "steps": [{"to": ["phone", FAMILY]}, {"to": [OFFICE], "after": "10s"}]},
        {"name": "gateway", "match": {"kind": "gateway"}, "to": [OFFICE]},
        {"name": "rest", "to": ["phone"]},
    ],
}  # fmt: skip
PATIENCE_S = {"田中": 3.0, "佐藤": 4.0, "鈴木": 3.0, "山田": 3.0, "マリア": 4.0, "役場の係": 6.0}
"""So long each thinks before answering by themselves; who sits at the desk is mostly faster."""
CANNOT = frozenset({"佐藤"})
_YES = ("確認しました", "かくにんしました", "一緒にいます", "いっしょに います", "行きます", "届きました")


class Scene(NamedTuple):
    """A part of the town's life worth seeing."""

    title: str
    start_us: int


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
        yield Scene("午前二時半 — somebody leaves home", left - MINUTE_US)
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

    def look(self, now_s: float) -> None:
        """Answers what was long enough on a phone and is still the last word there."""
        for one in self._phones.everybody:
            for channel in one.channels:
                asked = self._asks(one.name, channel)
                if asked is None:
                    continue
                since_s = self._since.setdefault((one.name, asked), now_s)
                if 0 <= now_s - since_s >= PATIENCE_S[one.name]:
                    self._since[one.name, asked] = float("inf")
                    self._answer(one.name, channel)

    def _asks(self, name: str, channel: str) -> str | None:
        """What names the newest question that nobody has answered; None where there is none."""
        if channel == "line":
            last = next(reversed(self._phones.line.phone(name).chat), None)
            return last.id or f"{last.at_us}" if last and any(action.type == "postback" for action in last.actions) else None
        try:
            return self._phones.link(name) if channel == "mail" else self._phones.call(name).sid
        except LookupError:
            return None

    def _answer(self, name: str, channel: str) -> None:
        yes = name not in CANNOT
        if channel == "line":
            shown = self._phones.line.phone(name).chat[-1]
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


def run(
    for_s: float | None, *, as_json: bool, broker_name: str, seed: int, folder: Path | None, quiet_people: bool = False
) -> int:
    """Runs the demo for so many seconds, or until interrupted. The exit code: 0 when nothing was lost or doubled."""
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
            EVERYBODY, now_us=lambda: time.time_ns() // 1000, public_url=url, webhook=f"{url}/hooks/line", gateway_url=url,
            desk_port=0,
        )  # fmt: skip
        with Phone(free_port()) as phone, phones:
            tell = Narrator(console)
            tell.say("[bold]霧沢町 — satomori on a desk[/bold]: broker, gateway and edges are starting")
            town = Town(
                home / "town", broker, phone, world, api_port=api_port, phones=phones, people=PEOPLE | _canary(time.time())
            )
            with town:
                tell.say(f"the town's page:  {town.url}/map#token={town.token}", whole=True)
                tell.say(f"the phones:       {phones.url}", whole=True)
                tell.say(f"the webhook:      {phone.url}", whole=True)
                phones.join_all(town.post)
                names = "、".join(one.name for one in EVERYBODY)
                tell.say(f"{names} have joined, each has answered a test; buttons on the phones' page really answer")
                list(phones.news())
                habits = None if quiet_people else Habits(phones, tell.say)
                devices = sum(len(edge.node.devices) for edge in town.edges)
                tell.say(f"{len(town.edges)} nodes, {devices} devices, broker {broker.name}; a second here is a minute there")
                _play(town, phones, tell, habits, for_s, stop)
                tell.say("the day is over: waiting until every record is acknowledged")
                town.settle()
                for edge in town.edges:
                    edge.program.end()
                alerts = town.get("/api/v1/alerts?limit=1000")["alerts"]
                tell.people(phones.news())
                answers = town.answers()
            result = _result(town, phone, alerts, devices) | {
                "answers": answers,
                "notifications_by_channel": {"webhook": len(phone.times()), **phones.count()},
            }
    good = result["records_lost"] == 0 and result["duplicates_stored"] == 0
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _summary(tell, result)
    return 0 if good else 1


def _canary(now_s: float) -> dict[str, Any]:
    """The day's test alarm at a full minute after everybody has joined: within 20 to 80 seconds."""
    at = datetime.fromtimestamp(now_s + 80, UTC) + timedelta(hours=9)
    return {"canary": {"at": f"{at:%H:%M}", "to": OFFICE, "within": "60s"}}


def _play(town: Town, phones: Phones, tell: Narrator, habits: Habits | None, for_s: float | None, stop: threading.Event) -> None:
    """Plays scene after scene until the time is over."""
    ends = None if for_s is None else time.monotonic() + for_s
    scene_s = SCENE_S if for_s is None else min(SCENE_S, for_s / 3)
    before_us = OPENED_US
    for scene in scenes(town.world):
        if stop.is_set() or (ends is not None and time.monotonic() >= ends):
            return
        tell.say(f"[bold]{scene.title}[/bold]  ({_local(scene.start_us)})")
        began = time.monotonic()
        town.skip(before_us, scene.start_us)
        before_us = scene.start_us
        while not stop.is_set() and time.monotonic() - began < scene_s and (ends is None or time.monotonic() < ends):
            now_us = scene.start_us + int((time.monotonic() - began) * LAPSE * SECOND_US)
            town.play(before_us, now_us)
            before_us = now_us
            tell.people(phones.news())
            if habits is not None:
                habits.look(time.monotonic())
            stop.wait(BEAT_S)


def _local(t_us: int) -> str:
    return f"{datetime.fromtimestamp(t_us / 1e6, UTC) + timedelta(hours=9):%Y-%m-%d %H:%M}"


def _result(town: Town, phone: Phone, alerts: list[dict[str, Any]], devices: int) -> dict[str, Any]:
    """The demo's JSON."""
    found = audit(town)
    fired = Counter(alert["kind"] for alert in alerts if alert["fired_us"] is not None)
    shown = phone.seen()
    waits = sorted(
        (one.at_us - datetime.fromisoformat(one.message["event_time"]).timestamp() * 1e6) / 1000
        for one in shown
        if one.message.get("message") == "alert" and one.message["rule"] in ("trap-sprung", "camera-picture")
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
        "alerts": dict(sorted(fired.items())),
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
