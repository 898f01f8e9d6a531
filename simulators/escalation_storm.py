"""The storm of escalations: traps spring, people are asked in short steps and answer, and the gateway is killed with -9 amid it.

Real broker, edge and gateway; people have LINE, push, mail, short messages, telephones and a webhook, whose providers take a
moment to answer, so that kills find attempts under way. At the end the ledger is held against what the phones got. `make test`
and `make soak` run the same code; when it is killed comes from the seed.
"""

import json
import random
import re
import sqlite3
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from edge.drivers.paced import BURST
from gateway.contacts import people, proof
from gateway.contacts.address import AddressChannel
from gateway.notify.line import read_postback
from gateway.notify.push import open_vapid
from gateway.paging import message_id
from gateway.state import open_state
from simulators.broker import Broker
from simulators.line import LinePlatform
from simulators.line import user_id as line_user
from simulators.mail_server import MailServer
from simulators.phone import Phone
from simulators.ports import free_port
from simulators.push_service import PushService
from simulators.town import Edge, Town, write_toml
from simulators.twilio import Call, TwilioService
from simulators.world import SimDevice, SimNode, World

OURS = "+815000000001"
SID = "AC" + "0" * 32
VAPID_CONTACT = "mailto:office@example.jp"
OFFICE = "office"
NEEDED = 2
EDGES, TRAPS = 2, 10
"""Real edges, and traps on each."""
HOLD_S = 0.8  # a trap is left as it is for longer than its debounce time
SLOW_S = 0.15
"""How long a provider takes to say that it has something: a kill in between leaves an attempt without an outcome."""

RULES = {"trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"}}

Ways = Sequence[tuple[AddressChannel, str]]
GROUPS: Mapping[str, Mapping[str, Ways]] = {
    "farmers": {
        "田中": [("line", "田中"), ("mail", "tanaka@example.jp")],
        "佐藤": [("push", "佐藤"), ("mail", "sato@example.jp")],
        "鈴木": [("mail", "suzuki@example.jp")],
    },
    "hunters": {"高橋": [("line", "高橋")], "伊藤": [("sms", "+815000000012"), ("voice", "+815000000012")]},
    "callers": {"渡辺": [("voice", "+815000000013")]},
}
"""Who is in which group, with which addresses in their order. Invented."""

STEPS: Sequence[Mapping[str, Any]] = (
    {"to": ["farmers"]},
    {"to": ["hunters"], "after": "2s"},
    {"to": ["callers", "hunters"], "after": "4s", "by": "voice"},
    {"to": [OFFICE], "after": "6s"},
)


class Providers:
    """Everything that a message can arrive at, on loopback. A context manager."""

    def __init__(self, gateway_url: str, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        """`gateway_url`: where hooks lead."""
        self.line = LinePlatform(f"{gateway_url}/hooks/line", limit=None, now_us=now_us)
        self.push, self.mail, self.office = PushService(now_us=now_us), MailServer(now_us=now_us), Phone(now_us=now_us)
        self.twilio = TwilioService(
            SID, "token-of-the-simulator", [OURS], public_url=gateway_url, gateway_url=gateway_url, now_us=now_us
        )
        self._open = ExitStack()

    def __enter__(self) -> "Providers":
        for one in (self.line, self.push, self.mail, self.office, self.twilio):
            self._open.enter_context(one)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def slow(self, seconds: float) -> None:
        """Each takes what it gets at once, and says so after so long."""
        for one in (self.line, self.push, self.mail, self.office, self.twilio):
            one.slow(seconds)

    def received(self) -> dict[str, Counter[str]]:
        """How often each notification got there: by channel and id. What came without an id counts as ""."""
        line: Counter[str] = Counter()
        for name in self.line.people:
            line.update(one.key or "" for one in self.line.phone(name).messages if one.how == "push")
        return {
            "line": line,
            "webhook": Counter(one.key or "" for one in self.office.received if one.shown),
            "push": Counter(str(one.message["id"]) for one in self.push.pushed if one.message is not None),
            "mail": Counter(one.id.strip("<>").partition("@")[0] for one in self.mail.mails if one.taken),
            "sms": Counter(one.callback.rpartition("/")[2] for one in self.twilio.messages),
            "voice": Counter(one.callback.rpartition("/")[2] for one in self.twilio.calls),
        }

    def replies(self) -> int:
        """Messages that came as LINE's free replies: of these nobody but LINE knows an id."""
        return sum(one.how == "reply" for name in self.line.people for one in self.line.phone(name).messages)

    def rang(self) -> Counter[str]:
        """Notifications that a browser, or a mail program, showed as new: what people themselves are woken by."""
        shown: Counter[str] = Counter()
        for name in self.push._browsers:
            shown.update(self.push.rang(name))
        for to in {one.to for one in self.mail.mails}:
            shown.update(one.id.strip("<>").partition("@")[0] for one in self.mail.seen(to))
        return shown


class PeopleTown(Town):
    """A town whose messages go to people: `groups` of contacts with proved addresses at `providers`."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        providers: Providers,
        world: World,
        groups: Mapping[str, Mapping[str, Ways]],
        routes: Sequence[Mapping[str, Any]],
        *,
        api_port: int,
    ) -> None:
        """As Town; `providers` are open already. `routes`: as in gateway.toml."""
        self.providers, self._groups, self._routes = providers, groups, routes
        self.contacts: dict[str, str] = {}
        """Ids of contacts by their names, once the block was entered."""
        super().__init__(folder, broker, providers.office, world, rules=RULES, api_port=api_port)
        self._reach_people(folder / "gateway.toml", folder / "gateway")

    def __enter__(self) -> "PeopleTown":
        self._enter_people()
        super().__enter__()
        return self

    def _reach_people(self, config: Path, home: Path) -> None:
        """Adds to gateway.toml what messages to people need."""
        providers = self.providers
        secrets = {
            "line-secret": providers.line.secret,
            "line-token": providers.line.token,
            "twilio": providers.twilio.auth_token,
        }
        for name, secret in secrets.items():
            (home / name).touch(mode=0o600)
            (home / name).write_text(secret, encoding="utf-8")
        document = tomllib.loads(config.read_text(encoding="utf-8"))
        document |= {
            "contact": {OFFICE: {"type": "webhook", "url": providers.office.url, "timeout_s": 5.0}},
            "group": {name: {"label": name} for name in self._groups},
            "people": {"public_url": self.url, "folder": str(home / "people"), "town": "霧沢町", "office": OFFICE},
            "channel": {
                "line": {"channel_secret_file": str(home / "line-secret"), "access_token_file": str(home / "line-token"),
                         "url": providers.line.url, "timeout_s": 5.0},
                "push": {"contact": VAPID_CONTACT, "allow_loopback": True, "timeout_s": 5.0},
                "mail": {"host": providers.mail.host, "port": providers.mail.port, "tls": "none",
                         "from": "satomori@town.example.jp", "timeout_s": 5.0},
                "twilio": {"account_sid": SID, "auth_token_file": str(home / "twilio"), "from": OURS,
                           "url": providers.twilio.url, "timeout_s": 5.0},
            },
            "route": list(self._routes),
        }  # fmt: skip
        write_toml(config, document)

    def _enter_people(self) -> None:
        vapid = open_vapid(self.folder / "gateway" / "people", VAPID_CONTACT)
        state = open_state(f"sqlite:///{self.state_db}")
        now_us = time.time_ns() // 1000
        try:
            with state.write() as connection:
                for group, members in self._groups.items():
                    for name, ways in members.items():
                        id_ = self.contacts[name] = people.add(connection, name, "ja", [group], "storm", now_us)
                        for channel, to in ways:
                            address = people.add_address(
                                connection, id_, channel, self._address(channel, to, vapid.public_key), now_us
                            )
                            proof.heard(connection, address, now_us)
        finally:
            state.close()
        for members in self._groups.values():
            for ways in members.values():
                for channel, to in ways:
                    if channel == "line":
                        self.providers.line._user(to).follows = True  # since long before: nobody need be told of it

    def _address(self, channel: AddressChannel, to: str, key: str) -> str:
        if channel == "line":
            return line_user(to)
        return self.providers.push.subscribe(str(len(self.contacts)), key) if channel == "push" else to


class Traps(World):
    """A town of nothing but traps."""

    def __init__(self, seed: int, edges: int, traps: int) -> None:
        """So many traps at each of so many edges."""
        super().__init__(seed)
        self._edges, self._traps = edges, traps

    def nodes(self) -> list[SimNode]:
        """The edges."""
        devices = [SimDevice(f"trap-{number}", "reed_trap", "北尾根", f"北尾根 {number}番") for number in range(self._traps)]
        return [SimNode(f"kitaone-{number}", devices) for number in range(self._edges)]


class Said(NamedTuple):
    """An answer that somebody gave and that was taken, as far as they know."""

    notification: str
    """Its id, or the link that stands in it."""
    answer: str
    via: str


class Crowd:
    """Those who answer, some of them: in a thread of their own, until `stop`. Who gets no answer from the gateway tries again."""

    def __init__(self, providers: Providers, rng: random.Random) -> None:
        self.said: list[Said] = []
        self.faults: list[str] = []
        self._providers, self._rng = providers, rng
        self._known: set[tuple[str, str]] = set()
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._stop = threading.Event()
        self._http = httpx.Client(timeout=10, trust_env=False)
        self._thread = threading.Thread(target=self._run, name="sim-crowd", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody answers any more."""
        self._stop.set()
        self._thread.join(60)
        self._http.close()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self._look()
                now = time.monotonic()
                due, self._due = [one for one in self._due if one[0] <= now], [one for one in self._due if one[0] > now]
                for _, act in due:
                    act()
            except Exception as error:  # noqa: BLE001 - told at the end: a crowd that fell silent would prove nothing
                self.faults.append(f"somebody could not answer: {error!r}")

    def _look(self) -> None:
        """Everything that has come since the last look, and asks something, is answered later or not at all."""
        providers = self._providers
        for name in providers.line.people:
            for shown in providers.line.phone(name).messages:
                buttons = [one for one in shown.actions if one.type == "postback"]
                if buttons and self._is_new("line", shown.id):
                    answer = self._choose()
                    for button in buttons:
                        known = read_postback(button.value)
                        if known is not None and known[0] == answer:
                            self._later(partial(self._tap, name, button, known[1], answer))
        for link in self._links():
            if self._is_new("link", link) and (answer := self._choose()):
                self._later(partial(self._open, link, answer))
        for call in providers.twilio.calls:
            if call.status == "ringing" and self._is_new("call", call.sid):
                self._later(partial(self._phone, call, self._choose()))

    def _links(self) -> Iterator[str]:
        providers = self._providers
        yield from (str(one.message["answer_url"]) for one in providers.push.pushed if one.message and one.message["buttons"])
        for mail in providers.mail.mails:
            yield from re.findall(r"http\S+/a/[\w-]+", mail.text())[:1]
        for sms in providers.twilio.messages:
            yield from re.findall(r"http\S+/a/[\w-]+", sms.body)[:1]

    def _is_new(self, kind: str, id_: str) -> bool:
        new = (kind, id_) not in self._known
        self._known.add((kind, id_))
        return new

    def _choose(self) -> str | None:
        return self._rng.choices(("going", "cannot", None), (3, 3, 6))[0]

    def _later(self, act: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + self._rng.uniform(0, 2.5), act))

    def _until(self, done: Callable[[], bool]) -> bool:
        """Tries again while the gateway is not there."""
        deadline, why = time.monotonic() + 60, "not taken"
        while time.monotonic() < deadline and not self._stop.is_set():
            try:
                if done():
                    return True
            except httpx.HTTPError as error:
                why = repr(error)
            time.sleep(0.1)
        if not self._stop.is_set():
            self.faults.append(f"an answer found no gateway: {why}")
        return False

    def _tap(self, name: str, button: Any, notification: str, answer: str) -> None:
        line = self._providers.line
        if line.press(name, button) == 200 or self._until(lambda: line.again() == 200):
            self.said.append(Said(notification, answer, "line"))
            if self._rng.random() < 0.3:
                line.again()  # LINE may say it twice

    def _open(self, link: str, answer: str) -> None:
        status: list[int] = []

        def post() -> bool:
            status.append(self._http.post(link, data={"answer": answer}).status_code)
            return status[-1] != 503

        if self._until(post) and status[-1] == 200:
            self.said.append(Said(link, answer, "link"))
        elif status and status[-1] not in (200, 409, 422):
            self.faults.append(f"a link was answered {status[-1]}")

    def _phone(self, call: Call, answer: str | None) -> None:
        twilio = self._providers.twilio

        def tried(act: Callable[[], object]) -> Callable[[], bool]:
            def run() -> bool:
                act()
                return True

            return run

        if answer is None:
            self._until(tried(lambda: twilio.fail(call, "no-answer")))
            return
        if not self._until(tried(lambda: twilio.take(call))) or call.waiting is None:
            return
        where = call.waiting

        def press() -> None:
            call.waiting = where  # a key whose hook was not there is pressed again
            twilio.press(call, "1" if answer == "going" else "2")

        if self._until(tried(press)) and "an application error has occurred" not in call.said:
            self.said.append(Said(call.callback.rpartition("/")[2], answer, "keypad"))


class Outcome(NamedTuple):
    """What was done and what came of it."""

    kills: int
    springs: int
    pages: int
    messages: dict[str, int]
    """By channel."""
    possibly_twice: int
    """As the ledger says."""
    twice: dict[str, int]
    """What providers got more than once, by channel."""
    answers: int
    ended: dict[str, int]
    """Pages by how they ended."""
    faults: list[str]
    """What is wrong, in words; empty when everything is right."""


def escalation_storm(
    home: Path, broker: Broker, *, kills: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Springs traps, lets people answer and kills the gateway, until everything has ended; then counts."""
    rng = random.Random(seed)
    port = free_port()
    routes: list[Mapping[str, Any]] = [
        {"match": {"kind": "trap"}, "steps": list(STEPS), "needed": NEEDED, "tell_end": True},
        {"to": [OFFICE]},
    ]
    with (
        Providers(f"http://127.0.0.1:{port}") as providers,
        PeopleTown(home, broker, providers, Traps(seed, EDGES, TRAPS), GROUPS, routes, api_port=port) as town,
    ):
        traps = _SimTraps(town, rng)
        crowd = Crowd(providers, random.Random(seed + 1))
        town.settle()
        providers.slow(SLOW_S)
        for number in range(kills):
            for _ in range(3):
                traps.spring()
                time.sleep(rng.uniform(0, 0.6))
            traps.reset_what_ended()
            time.sleep(rng.uniform(0, 1.2))
            town.gateway.kill()
            say(f"kill {number + 1}/{kills}")
            if number % 5 == 2:
                town.gateway.start()
                time.sleep(rng.uniform(0.5, 2.0))
                town.gateway.kill()  # also while it starts; not counted
            town.start_gateway()
        _wait_for(lambda: traps.reset_what_ended() == 0, 90)
        crowd.stop()
        _wait_for(lambda: _is_quiet(town.state_db, traps.springs), 60)
        town.gateway.end()
        audit = _Audit(town, crowd.said)
        return Outcome(
            kills, traps.springs, len(audit.pages), dict(Counter(row["channel"] for row in audit.rows)),
            sum(row["possibly_twice"] for row in audit.rows), audit.twice(), len(audit.answers), audit.endings(),
            [*crowd.faults, *audit.faults(traps.springs)],
        )  # fmt: skip


class _SimTraps:
    """The traps of the edges: sprung, and set again once the page of it has ended."""

    def __init__(self, town: Town, rng: random.Random) -> None:
        self.springs = 0
        self._town, self._rng = town, rng
        self._edges: dict[str, Edge] = {edge.node.name: edge for edge in town.edges}
        self._all = [(edge.node.name, device) for edge in town.edges for device in edge.pin_of]
        self._sprung: dict[tuple[str, str], float] = {}
        self._moved: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def spring(self) -> None:
        """One that is set, and was not moved so often that the edge would fold it."""
        now = time.monotonic()
        calm = [
            key for key in self._all
            if key not in self._sprung and sum(now - at < 70 for at in self._moved[key]) < BURST - 2
            and (not self._moved[key] or now - self._moved[key][-1] > 10)
        ]  # fmt: skip
        if calm:
            key = self._rng.choice(calm)
            self._move(key, sprung=True)
            self._sprung[key] = now
            self.springs += 1

    def reset_what_ended(self) -> int:
        """Sets what nobody need be asked about any more; how many are sprung still."""
        db = self._town.state_db
        known = {(row["node"], row["device"]) for row in _read(db, "SELECT node, device FROM alerts WHERE state != 'resolved'")}
        asking = _asking(db)
        for key, since in list(self._sprung.items()):
            if key in known and key not in asking and time.monotonic() - since > HOLD_S:
                self._move(key, sprung=False)
                del self._sprung[key]
        return len(self._sprung)

    def _move(self, key: tuple[str, str], *, sprung: bool) -> None:
        self._moved[key].append(time.monotonic())
        self._town.set_trap(self._edges[key[0]], key[1], sprung=sprung)


def _asking(state_db: Path) -> set[tuple[str, str]]:
    """Traps whose page has neither enough answers nor reached the office."""
    rows = _read(
        state_db,
        f"""SELECT node, device FROM pages JOIN page_alerts ON page = pages.id JOIN alerts ON alerts.id = alert
        WHERE pages.kind = 'trap' AND pages.state IN ('waiting', 'asking') AND pages.step < {len(STEPS)}""",  # noqa: S608
    )
    return {(row["node"], row["device"]) for row in rows}


def _is_quiet(state_db: Path, springs: int) -> bool:
    (open_,) = _read(
        state_db,
        """SELECT (SELECT count(*) FROM pages WHERE kind = 'trap' AND state = 'closed') AS closed,
        (SELECT count(*) FROM notifications WHERE state = 'queued')
        + (SELECT count(*) FROM pages WHERE changed) + (SELECT count(*) FROM inbox WHERE done_us IS NULL) AS waiting""",
    )
    return bool(open_["closed"] >= springs and open_["waiting"] == 0)


def _read(state_db: Path, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{state_db}?mode=ro", uri=True, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query)]


class _Audit:
    """The state database of a gateway that has ended, held against what the phones got and what people said."""

    def __init__(self, town: PeopleTown, said: Sequence[Said]) -> None:
        db = town.state_db
        self.rows = _read(db, "SELECT * FROM notifications")
        self.pages = _read(db, "SELECT * FROM pages WHERE kind = 'trap' ORDER BY opened_us")
        self.answers = _read(db, "SELECT * FROM answers ORDER BY id")
        self._alerts = _read(db, "SELECT alerts.id, page FROM alerts LEFT JOIN page_alerts ON alert = id WHERE kind = 'trap'")
        self._undone = _read(db, "SELECT id FROM inbox WHERE done_us IS NULL OR error IS NOT NULL")
        self._said = said
        self._received, self._rang = town.providers.received(), town.providers.rang()
        self._replies = town.providers.replies()
        self._by_id = {row["id"]: row for row in self.rows}
        self._of_page: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in self.answers:
            self._of_page[one["page"]].append(one)
        self._contacts = town.contacts
        self._steps = [
            {town.contacts.get(name, name) for group in step["to"] for name in _members(group, step.get("by"))} for step in STEPS
        ]

    def twice(self) -> dict[str, int]:
        """What providers got more than once, by channel."""
        found = {channel: sum(number > 1 for number in got.values()) for channel, got in self._received.items()}
        return {channel: number for channel, number in found.items() if number}

    def endings(self) -> dict[str, int]:
        """Pages by how they ended."""
        return dict(Counter(self._ending(page) for page in self.pages))

    def faults(self, springs: int) -> list[str]:
        """What is wrong, in words."""
        found = []
        if (len(self._alerts), len(self.pages)) != (springs, springs) or any(one["page"] is None for one in self._alerts):
            found.append(f"{springs} springs, {len(self._alerts)} alerts, {len(self.pages)} pages")
        found += [f"inbox {one['id']} was not worked on" for one in self._undone]
        for row in self.rows:
            found += self._row_faults(row)
        for channel, got in self._received.items():
            found += [f"{channel} got {id_ or 'a message without an id'}, which is not in the ledger"
                      for id_ in got if id_ not in self._by_id or self._by_id[id_]["channel"] != channel]  # fmt: skip
        replied = [row for row in self.rows if self._is_reply(row) and row["sent_us"] is not None]
        if len(replied) != self._replies:
            found.append(f"{len(replied)} replies in the ledger, {self._replies} on the phones")
        for page in self.pages:
            found += [f"page {page['id']}: {fault}" for fault in self._page_faults(page)]
        return found + self._lost_answers()

    def _is_reply(self, row: Mapping[str, Any]) -> bool:
        """Whether it went, if it went, as a free reply of LINE's."""
        return bool(row["kind"] == "reply" and row["channel"] == "line" and not self._received["line"][row["id"]])

    def _row_faults(self, row: Mapping[str, Any]) -> Iterator[str]:
        channel, got = row["channel"], self._received[row["channel"]][row["id"]]
        what = f"{channel} {row['kind']} {row['id']}"
        if row["state"] in ("queued", "dead"):
            yield f"{what} is {row['state']}: {row['error']}"
        if row["sent_us"] is not None and not got and not self._is_reply(row):
            yield f"{what} is {row['state']}, and nobody got it"
        if got and row["sent_us"] is None:
            yield f"{what} is {row['state']} and was got"
        if channel == "line" and got > 1:
            yield f"{what} was shown {got} times"
        if channel in ("mail", "push", "sms", "voice") and got > 1 and not row["possibly_twice"]:
            yield f"{what} was got {got} times, and the ledger does not say possibly twice"
        if channel in ("mail", "push") and got and self._rang[row["id"]] != 1:
            yield f"{what} rang {self._rang[row['id']]} times"

    def _ending(self, page: Mapping[str, Any]) -> str:
        last: dict[str, str] = {}
        for one in self._of_page[page["id"]]:
            last[one["contact"]] = one["answer"]
            # At any time: the trap is set again then, and who takes their word back after that comes too late.
            if sum(answer == "going" for answer in last.values()) >= NEEDED:
                return "answered"
        office = self._by_id.get(message_id(page["id"], OFFICE, "alert", f"0/step/{len(STEPS) - 1}"))
        return "office" if office is not None and office["sent_us"] is not None else "nobody"

    def _page_faults(self, page: Mapping[str, Any]) -> Iterator[str]:
        if self._ending(page) == "nobody":
            yield f"{page['state']} at step {page['step']} without enough answers, and the office was not told"
        told = json.loads(page["memory"]).get("told", {})
        said = self._of_page[page["id"]]
        wanted: set[str] = set()
        for number in range(page["step"]):
            after_us = page["opened_us"] + int(str(STEPS[number].get("after", "0s")).rstrip("s")) * 1_000_000
            for contact in self._steps[number]:
                id_ = message_id(page["id"], contact, "alert", f"0/step/{number}")
                wanted.add(id_)
                row = self._by_id.get(id_)
                if row is None and not any(one["contact"] == contact for one in said):
                    yield f"step {number + 1} was skipped for {contact}"
                elif row is not None and row["created_us"] < after_us and not self._all_answered(number, said, row["created_us"]):
                    yield f"step {number + 1} came {(after_us - row['created_us']) / 1e6:.1f} s early"
        for row in self.rows:
            if row["page"] == page["id"] and row["kind"] == "alert" and row["id"] not in wanted and not row["failed_over_from"]:
                yield f"{row['contact']} was asked by no step, or twice: {row['id']}"
        telephones = {self._contacts[name] for name in _members("callers", None)}
        for contact in told:
            # Nobody who has a telephone only is rung just to hear that it is over, but who is on the way.
            goes = next((one["answer"] for one in reversed(said) if one["contact"] == contact), None) == "going"
            owed = page["state"] == "closed" and (goes or contact not in telephones)
            if owed and message_id(page["id"], contact, "over", "0/over") not in self._by_id:
                yield f"{contact} was not told that it is over"
        for contact in {one["contact"] for one in said}:
            mine = [one["answer"] for one in said if one["contact"] == contact]
            if any(one == next_ for one, next_ in pairwise(mine)):
                yield f"{contact}'s answer is kept twice: {mine}"

    def _all_answered(self, step: int, said: Sequence[Mapping[str, Any]], at_us: int) -> bool:
        """Whether everybody of the earlier steps had answered by then: the next one begins at once."""
        asked: set[str] = set().union(*self._steps[:step])
        return asked <= {one["contact"] for one in said if one["at_us"] <= at_us}

    def _lost_answers(self) -> list[str]:
        """Answers that their providers, or people, were told are taken, and that are not there."""
        by_link = {json.loads(row["body"]).get("answer_url"): row for row in self.rows}
        closed = {page["id"]: page["closed_us"] for page in self.pages}
        found = []
        for one in self._said:
            row = self._by_id.get(one.notification) or by_link.get(one.notification)
            if row is None:
                found.append(f"an answer by {one.via} to a message that is not in the ledger")
                continue
            if row["kind"] == "test":  # by day the gateway asks whether an address still reaches somebody; its only key is 1
                if one.answer == "going" and row["answered_us"] is None:
                    found.append(f"the answer by {one.via} to the test {row['id']} was lost")
                continue
            kept = any(
                answer["contact"] == row["contact"] and answer["answer"] == one.answer for answer in self._of_page[row["page"]]
            )
            if not kept and (one.via == "link" or closed.get(row["page"]) is None):
                found.append(f"{one.answer} by {one.via} to {row['id']} was lost")
        return found


def _members(group: str, by: str | None) -> list[str]:
    """Names of a group's people, or of a configured contact itself; with `by`, who has such an address."""
    if group not in GROUPS:
        return [group]
    return [name for name, ways in GROUPS[group].items() if by is None or any(channel == by for channel, _ in ways)]


def _wait_for(condition: Callable[[], object], timeout_s: float) -> None:
    """Until it holds; what does not in time is counted as faults later."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
