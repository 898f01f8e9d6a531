"""What a step of a story can do: to nodes, to the broker and the gateway, and what its people do. One method a step."""

import hashlib
import inspect
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from edge.contract.events import MediaCaptured, TagBattery, TagEntered, TagLeft
from edge.contract.names import is_name
from edge.contract.topics import Channel, Topic, topic_for
from edge.records import Happened, Reading
from gateway.mimamori import labels
from gateway.pipeline import Message
from gateway.rules.duration import parse_duration
from gateway.state.tables import events
from simulators.hardware import picture, save_picture

if TYPE_CHECKING:
    from simulators.scenario.gateway import Gateway
    from simulators.scenario.story import Story

BOOTED_AGO_US = 30_000_000  # when its agent starts


class ScenarioError(ValueError):
    """The scenario is written wrongly; the text says what."""


class Steps:
    """Those of one story."""

    def __init__(self, story: "Story") -> None:
        self._story = story
        self._pictures: dict[str, bytes] = {}  # what each camera has seen last

    def do(self, step: dict[str, Any]) -> None:
        """Does one, by its name and what it takes. ScenarioError for what is no step, or can't be done."""
        name = step.pop("do", None)
        action = getattr(self, f"_do_{name}", None)
        if action is None:
            there_are = sorted(known.removeprefix("_do_") for known in dir(self) if known.startswith("_do_"))
            raise ScenarioError(f"do = {name!r} is no step; there are: {', '.join(there_are)}")
        try:
            inspect.signature(action).bind(**step)
        except TypeError as error:
            raise ScenarioError(f"step {name!r}: {error}") from error
        try:
            action(**step)
        except LookupError as error:
            raise ScenarioError(f"step {name!r}: {error}") from error

    @property
    def _gateway(self) -> "Gateway":
        if self._story.gateway is None:
            raise ScenarioError("the gateway does not run")
        return self._story.gateway

    # To nodes, broker and gateway

    def _do_spring(self, node: str, device: str) -> None:
        self._story.pins.low(self._story.nodes[node].pins[device])

    def _do_spring_all(self) -> None:
        """Every trap of every node springs."""
        for node in self._story.nodes.values():
            for pin in node.pins.values():
                self._story.pins.low(pin)

    def _do_reset(self, node: str, device: str) -> None:
        self._story.pins.high(self._story.nodes[node].pins[device])

    def _do_take_pictures(self, node: str, device: str, count: int) -> None:
        """The camera writes so many different pictures to its card."""
        for number in range(count):
            at_us = self._story.now_us() + number * 1_000_000
            save_picture(self._story.nodes[node].cards[device], at_us, picture(at_us, "wild-boar", seed=1))

    def _do_see(self, node: str, device: str, species: str, burst: str) -> None:
        """The camera's model names an animal in one more picture of this burst (16 hex digits)."""
        one = self._story.nodes[node]
        # A JPEG, as far as its bytes go.
        self._pictures[device] = content = b"\xff\xd8\xff\xda\0\2%s %d\xff\xd9" % (device.encode(), self._story.now_us())
        media = hashlib.sha256(content).hexdigest()
        seen = {"device": device, "type": "media_captured", "class": "evidence", "media": media, "size": len(content),
                "content_type": "image/jpeg", "burst": burst, "content": "animal", "confidence": 0.9, "species": species,
                "seq": 1, "dt": 0}  # fmt: skip
        one.outbox.put([Happened(one.clock.now(), MediaCaptured.model_validate(seen))], "sync")

    def _do_upload(self, device: str) -> None:
        """The bytes of what this camera has seen last have come over its thin link."""
        content = self._pictures[device]
        self._gateway.upload(hashlib.sha256(content).hexdigest(), content)

    def _do_set_clock(self, node: str, off: str) -> None:
        """Somebody, or NTP, sets the node's clock: wrong by so much from now on. It goes on saying that it is right."""
        self._story.nodes[node].clock.off_us = _signed_us(off)

    def _do_sync_clock(self, node: str) -> None:
        """NTP reaches a node whose clock is `kept`: the clock is set right, and disciplined from now on."""
        self._story.nodes[node].clock.off_us, self._story.nodes[node].clock.disciplined = 0, True

    def _do_cut(self, node: str) -> None:
        self._story.wire.links[node].allowed = False
        self._story.wire.links[node].cut("cut")

    def _do_mend(self, node: str) -> None:
        self._story.wire.links[node].allowed = True

    def _do_switch_off(self, node: str) -> None:
        """The node loses its power: the broker speaks its will, nothing more comes."""
        one = self._story.nodes[node]
        self._do_cut(node)
        if one.task is not None:
            one.task.cancel()

    def _do_switch_on(self, node: str, clock_off: str) -> None:
        """It has power again: another boot, the same card, and a clock that is wrong by so much and that nothing disciplines."""
        one = self._story.nodes[node]
        one.outbox.close()
        self._story.start_node(one.description, clock_off, booted_us=self._story.clock.now().mono_us - BOOTED_AGO_US)

    def _do_lose_next_event(self) -> None:
        """The broker takes the next batch that holds an event, says so, and forgets it."""
        self._story.wire.lose_next_event = True

    def _do_kill_broker(self) -> None:
        self._story.wire.running = False
        self._story.wire.restart_empty()

    def _do_start_broker(self) -> None:
        self._story.wire.running = True

    def _do_kill_gateway_before_acks(self) -> None:
        """The next group that holds an event is stored and judged, and the gateway dies before it can say so."""
        self._story.crash_before_acks = True

    def _do_kill_gateway(self) -> None:
        self._story.crash()

    def _do_start_gateway(self) -> None:
        self._story.start_gateway()

    def _do_store_down(self) -> None:
        self._story.plugged = self._gateway.store.plugged = False

    def _do_store_up(self) -> None:
        self._story.plugged = self._gateway.store.plugged = True

    def _do_commit_readings(self, node: str, count: int, device: str = "bulk") -> None:
        """So many readings at once in the node's outbox, as after days without a link."""
        one = self._story.nodes[node]
        now = one.clock.now()
        ago = [now._replace(utc_us=now.utc_us - i * 1_000_000, mono_us=now.mono_us - i * 1_000_000) for i in range(count, 0, -1)]
        one.outbox.put([Reading(at, device, "rssi", -float(i % 90)) for i, at in enumerate(ago)], "sync")

    def _do_hear(self, node: str, device: str, tag: str, says: str, level: int = 100) -> None:
        """The receiver speaks of a tag: `tag_entered`, `tag_left`, or `tag_battery` with its level."""
        one, kinds = (
            self._story.nodes[node],
            {kind.model_fields["type"].default: kind for kind in (TagEntered, TagLeft, TagBattery)},
        )
        of_it = {"level": level} if says == "tag_battery" else {"rssi": -60}
        heard = {"device": device, "type": says, "class": "sighting", "tag": tag, "seq": 1, "dt": 0, **of_it}
        one.outbox.put([Happened(one.clock.now(), kinds[says].model_validate(heard))], "sync")

    def _do_beat(self, node: str, device: str) -> None:
        """The receiver says that it is alive."""
        one = self._story.nodes[node]
        one.outbox.put([Reading(one.clock.now(), device, "heartbeat", 1.0)], "sync")

    def _do_send_bad_messages(self, node: str, count: int) -> None:
        """Messages that can't be used, each in its own way, among the good ones."""
        assert is_name(node)
        good = topic_for(Topic(node, Channel.LIVE))
        batch = {"v": 1, "epoch": "ab" * 8, "boot": "0" * 16, "clock": "sync", "t0": self._story.now_us(), "mono0": 0,
                 "sent": self._story.now_us(), "sent_mono": None, "readings": [], "events": [], "lost": []}  # fmt: skip
        bad: list[tuple[str, bytes]] = [
            (good, b"\xff\xfe not JSON"),
            (good, b"{}"),
            (good, json.dumps(batch | {"v": 2}).encode()),
            (good, json.dumps(batch | {"readings": [[0, 0, "x", "rssi", 1]]}).encode()),
            (good, json.dumps(batch | {"readings": [[1, 0, "x", "rssi", 1], [1, 0, "x", "rssi", 1]]}).encode()),
            (good, b"[" * 100_000),
            (f"satomori/v1/63/{node}/up/live", json.dumps(batch).encode()),
            (good.replace("up/live", "up/nothing"), json.dumps(batch).encode()),
            ("elsewhere/entirely", b"hello"),
            (good, b""),
        ]
        for number in range(count):
            topic, payload = bad[number % len(bad)]
            self._story.wire.to_gateway.append(Message(topic, payload))

    def _do_look(self) -> None:
        """Only lets the time pass up to here."""

    def _do_show_events(self, node: str) -> None:
        """Notes what the gateway has of the node, in the order in which it came, and when it says that was."""
        with self._gateway.state.read() as connection:
            for row in connection.execute(select(events).where(events.c.node == node).order_by(events.c.id)):
                at_s = (row.time_us - self._story.start_us) // 1_000_000
                self._story.line(
                    "event", device=row.device, type=row.type, happened=at_s, late=row.late, trusted=row.clock_trusted
                )

    def _do_count_waiting(self, node: str) -> None:
        """Notes how many records the node holds because nobody acknowledged them."""
        self._story.line("waiting", node=node, records=self._story.nodes[node].outbox.waiting)

    # What people do

    def _do_tap(self, person: str, button: str) -> None:
        """Presses the newest button with this label in their LINE."""
        self._story.phones.line.tap(person, button)

    def _do_write(self, person: str, text: str) -> None:
        """Writes to the town's LINE account."""
        self._story.phones.line.write(person, text)

    def _do_press(self, person: str, digit: str) -> None:
        """Takes the call that rings, where they have not yet, and presses this key."""
        call = self._story.phones.call(person)
        if call.status == "ringing":
            self._story.phones.twilio.take(call)
        for said in self._story.phones.twilio.press(call, digit):
            self._story.line("call", to=person, said=said)

    def _do_no_answer(self, person: str) -> None:
        """Nobody takes the call that rings there."""
        self._story.phones.twilio.fail(self._story.phones.call(person))

    def _do_open_link(self, person: str, answer: str) -> None:
        """Opens the newest link in a mail or short message, and chooses this answer on its page."""
        link, web = self._story.phones.link(person), self._gateway.web
        for said in (web.get(link), web.post(link, data={"answer": answer})):
            if said.status_code != 200:
                self._story.line("page", to=person, status=said.status_code)

    def _do_consent(self, person: str, act: str) -> None:
        """Opens the newest question about consent in their LINE, and chooses on its page: `go_on`, or `really` to stop."""
        urls = [action.value for shown in self._story.phones.line.phone(person).messages for action in shown.actions]
        link = next((url for url in reversed(urls) if "/c/" in url), None)
        if link is None:
            raise ScenarioError(f"{person} has no question about consent")
        answer = self._gateway.web.post(link, data={"act": act})
        self._story.line("page", to=person, status=answer.status_code)

    def _do_find(self, tag: str, what: str, words: str = "") -> None:
        """Somebody finds a tag, scans its label, and reports `found` or `misuse`; notes what the page says then."""
        with self._gateway.state.write() as connection:
            label = labels.shown(labels.make(connection, tag, "desk", self._story.now_us()))
        said = self._gateway.web.post(f"/f/{label}", data={"what": what, "words": words})
        title = re.search(r"<h1>(.*?)</h1>", said.text)
        self._story.line("finder", status=said.status_code, reads=title[1] if title else "")

    def _do_show_watched(self, name: str) -> None:
        """Notes how the officer's list shows somebody: `state`, and how it stands with their consent."""
        [one] = [one for one in self._gateway.desk("GET", "/watched?places=false")["watched"] if one["name"] == name]
        self._story.line("watched", state=one["state"], consent=one["consent"]["state"])

    def _do_settle(self, how: str) -> None:
        """The officer decides on the oldest report of a tag that is open: `resume`, `revoke`, `stop` or `done`."""
        found = self._gateway.desk("GET", "/label-reports")["reports"]
        oldest = [one for one in found if one["state"] == "open"][-1]
        self._gateway.desk("POST", f"/label-reports/{oldest['id']}/settle", {"how": how})

    def _do_search(self, name: str, reason: str) -> None:
        """The officer opens a search for somebody who is watched over."""
        [one] = [one for one in self._gateway.desk("GET", "/watched?places=false")["watched"] if one["name"] == name]
        self._gateway.desk("POST", f"/watched/{one['id']}/search", {"reason": reason})

    def _do_follow(self, person: str) -> None:
        """Adds the town's LINE account as a friend, or unblocks it."""
        self._story.phones.line.follow(person)

    def _do_block(self, person: str) -> None:
        """Blocks the town's LINE account."""
        self._story.phones.line.block(person)

    def _do_join(self, person: str, group: str) -> None:
        """Gets a code for the group from the desk, and writes it to the LINE account with their name."""
        code = self._gateway.desk("POST", "/invitations", {"group": group})["code"]
        self._story.phones.line.write(person, f"{code} {person}")

    # What the officer does

    def _do_enter_contact(self, person: str, channel: str) -> None:
        """The officer enters somebody who has not joined, with their groups and this one address."""
        one = next(one for one in self._story.people if one.name == person)
        address = {"channel": channel, "address": self._story.phones.address(person, channel)}
        self._gateway.desk("POST", "/contacts", {"name": person, "groups": list(one.groups), "addresses": [address]})

    def _do_visit(self, node: str, device: str, result: str) -> None:
        """Enters a visit that was made just now: set, capture, empty, moved or removed."""
        self._gateway.desk("POST", "/visits", {"id": str(uuid.uuid4()), "node": node, "device": device, "result": result})

    def _do_switch_mode(self, mode: str, why: str) -> None:
        """Switches the town to disaster mode, or back to normal."""
        self._gateway.desk("POST", "/town/mode", {"mode": mode, "why": why})

    def _do_silence(self, match: dict[str, str], lasts: str, why: str) -> None:
        """Silences what fits for so long."""
        until_us = self._story.now_us() + _us(lasts)
        self._gateway.desk("POST", "/silences", {"match": match, "until_us": until_us, "why": why})

    def _do_shelve(self, device: str, lasts: str) -> None:
        """Puts the open alert of this device on the shelf for so long."""
        found = self._gateway.desk("GET", "/alerts?limit=1000")["alerts"]
        one = next(alert for alert in found if alert["device"] == device and alert["state"] not in ("resolved", "shelved"))
        until_us = self._story.now_us() + _us(lasts)
        self._gateway.desk("POST", f"/alerts/{one['id']}/shelve", {"version": one["version"], "until_us": until_us})

    def _do_count_unreachable(self) -> None:
        """Notes whom the desk's list of contacts shows as unreachable, and why."""
        found = self._gateway.desk("GET", "/contacts?reachable=false")["contacts"]
        for one in found:
            self._story.line("unreachable", name=one["name"], why=[way["why"] for way in one["addresses"]])

    # To providers

    def _do_channel_down(self, channel: str) -> None:
        """Nobody listens at the provider's any more: line, mail or twilio."""
        self._provider(channel).refuse()

    def _do_channel_up(self, channel: str) -> None:
        """It works as documented again."""
        provider = self._provider(channel)
        well = {"line": "well", "mail": "take"}.get(channel)
        getattr(provider, well)() if well else provider.answer(201)

    def _do_channel_answers(self, channel: str, status: int) -> None:
        """It answers every call with this status (mail: every mail with this code)."""
        provider = self._provider(channel)
        provider.answer("data", f"{status} try again later") if channel == "mail" else provider.answer(status)

    def _do_channel_garbage(self, channel: str) -> None:
        """LINE or Twilio take what comes, and answer what can't be read."""
        self._provider(channel).garbage()

    def _provider(self, channel: str) -> Any:
        found = {"line": self._story.phones.line, "mail": self._story.phones.mail, "twilio": self._story.phones.twilio}
        if channel not in found:
            raise ScenarioError(f"channel = {channel!r}: there are {', '.join(found)}")
        return found[channel]


def _us(text: str) -> int:
    return int(parse_duration(text) * 1_000_000)  # type: ignore[operator]


def _signed_us(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * _us(text.removeprefix("-"))
