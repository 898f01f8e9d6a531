"""MQTT into the pipeline: one thread that reads what is there, has it processed as one group, then acknowledges.

Where one process does everything it has one session with the broker. Where several hear the town, a session belongs to a
partition, and this process has those of the partitions that it holds (gateway.partitions).

A group is what has arrived, up to a size. It is read now and then, so that a busy town costs a few reads a second, not hundreds,
and what nobody waits for (`is_waited_for`) is held until the next tick, or until it is a whole group or all of a burst: a record
costs as much however many processes share the town. Brokers are answered before they might wait for us, so no in-flight limit
can stall it.

MQTT's acknowledgement is flow control only; what nodes go by is the `down/ack`, and where that does not reach them they send
again. What is held, and what a node sends beyond its share (gateway.shares), is acknowledged to the broker and waits here, or is
left unread until it comes again.
"""

import logging
import math
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from pydantic import Field
from sqlalchemy.exc import OperationalError

from edge.contract.broker import BrokerConfig
from edge.contract.names import Name
from edge.contract.topics import Channel, parse, partition_of, up_filters
from gateway.flush import Answer
from gateway.nodes.outgoing import Outgoing
from gateway.pipeline import Message
from gateway.session import NOT_YET, Session, Waiting
from gateway.shares import ShareConfig, Shares
from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

GROUP, GROUP_BYTES = 1000, 4 * 1024 * 1024  # what is read at once: one node's large messages must not keep the others waiting
ENOUGH = 20
"""Messages of one session that are taken up at once: what a broker sends before it waits for us, where nobody told it otherwise
(Mosquitto)."""
REST_S = 0.05
"""So long nothing more is read, where something was: to be woken costs more than to read a message."""
HELD_S = 1.5
"""So long after the last group what nobody waits for may be held: not at all, where it comes after a silence. Each group costs
the same commits, requests and syncs of a disk, however little it holds.
"""
QUIET_S = 0.05
"""So long after the last of them, ENOUGH held messages are taken for all of a burst."""
OWN_WAITING = 10  # of the gateway's own records: who gives one gives it again until it is known to have come
TICK_S = 1.0
_LIVE, _NO_EVENTS = f"/{Channel.LIVE}", b'"events":[]'
_TYPE, _SEEN_STILL = b'"type"', b'"type":"tag_seen"'
CATCH_UP_US = 10 * 60 * 1_000_000
"""For this long after connecting, messages may have waited in the broker while nobody listened."""


class GatewayBrokerConfig(BrokerConfig):
    """`[broker]`: where the broker is, and under which name the gateway goes there."""

    client_id: Name = Field("satomori-gateway", description="Names the session that the broker keeps for this gateway.")


class Processor(Protocol):
    """What ingest hands its groups to; gateway.pipeline.Pipeline is one."""

    def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
        """Returns the acks to publish."""
        ...

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass."""
        ...

    def save(self) -> None:
        """Saves what is remembered and not saved yet."""
        ...

    def anew(self) -> None:
        """Others may have written what is remembered here: it is read anew before it is used."""
        ...


class Held(NamedTuple):
    """A partition that this process hears from now on."""

    partition: int
    heard_us: int | None
    """When somebody last did; None: nobody ever did."""
    since_us: int | None
    """Since when it has been heard without a break worth the name; None: that begins now."""


class Partitions(Protocol):
    """Which partitions this process hears; gateway.partitions.Partitions is one."""

    def look(self, since_us: Mapping[int, int | None]) -> tuple[list[Held], list[int]]:
        """(to be heard from now on, to be let go of). It is told since when each of those that it has given out is heard."""
        ...

    def let_go(self, partitions: list[int]) -> None:
        """Of these nothing is under way here any more."""
        ...


class Ingest:
    """Sessions with the broker, kept up by `run` until `stop`."""

    def __init__(  # noqa: PLR0913 - what stands around it
        self,
        config: GatewayBrokerConfig,
        processor: Processor,
        telemetry: Telemetry,
        rng: random.Random,
        now_us: Callable[[], int],
        listened_until_us: int | None,
        outgoing: Outgoing | None = None,
        shares: Shares | None = None,
        *,
        partitions: Partitions | None = None,
    ) -> None:
        """`listened_until_us`: when an earlier run of this gateway last listened; None if none did.

        `outgoing` is asked what else to publish, once a second and when somebody rings. `shares`: how much of a group each node
        may have. `partitions` None: this process hears them all in one session. ConfigError when what the configuration says to
        show to the broker can't be used.
        """
        self._config, self._processor, self._telemetry = config, processor, telemetry
        self._rng, self._now_us = rng, now_us
        self._outgoing, self._rung = outgoing, threading.Event()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # wakes a thread that waits for the broker's next word
        weakref.finalize(self, os.close, self._bell)
        self._shares = shares or Shares(ShareConfig())
        self._own: deque[tuple[str, bytes]] = deque(maxlen=OWN_WAITING)
        self._said_mute, self._next_speech = False, 0.0
        self._stop = threading.Event()
        self._partitions = partitions
        # By partition; None: of all.
        self._sessions: dict[int | None, Session] = {}
        self._waiting = Waiting(self._bell)
        self._touched: set[Session] = set()  # something was done with them in this turn: written into, say
        self._said_down = self._said_stuck = False
        self._database_fault: str | None = None
        self._next_tick, self._first = 0.0, 0
        self._down: set[Session] = set()  # do not listen
        # What no group has had: of these, whose broker waits for our word, and what is held. What more there is room for.
        self._spoke: dict[Session, None] = {}
        self._held: list[Message] = []
        self._room, self._room_bytes = GROUP, GROUP_BYTES
        self._is_called = self._is_full = False  # somebody or a broker waits for something of it; it is a whole group
        self._next_read = self._last_read_s = self._grouped_s = -math.inf
        if partitions is None:
            self._begin(None, Session(config, config.client_id, up_filters(), rng, now_us, listened_until_us))

    @property
    def fault(self) -> str | None:
        """Why messages are not flowing now; None while they are."""
        if self._database_fault is not None:
            return self._database_fault
        lost = next((session.why for session in list(self._sessions.values()) if session.why is not None), None)
        return None if lost is None else f"broker not connected: {lost}"

    def stop(self) -> None:
        """Asks `run` to end; safe from any thread."""
        self._stop.set()
        os.eventfd_write(self._bell, 1)

    def ring(self) -> None:
        """Says that `outgoing` has something to publish; safe from any thread."""
        self._rung.set()
        os.eventfd_write(self._bell, 1)

    def publish(self, topic: str, payload: bytes) -> None:
        """Has it published as soon as the broker is connected, QoS 1, not retained; it may be lost. Safe from any thread."""
        self._own.append((topic, payload))
        self.ring()

    def run(self) -> None:
        """Connects, reads and processes until `stop`. Time passes for the rules even without a broker."""
        try:
            while not self._stop.is_set():
                self._turn()
            self._save()
        finally:
            for session in self._sessions.values():
                session.close()
            self._telemetry.broker_up.set(0)

    def _begin(self, partition: int | None, session: Session) -> None:
        self._sessions[partition] = session
        self._down.add(session)

    def _turn(self) -> None:
        for session in self._down:
            if not session.is_connected and not session.due_s():
                session.connect()
                self._waiting.look(session)
                self._telemetry.connections.inc(session.is_connected)
                if (ends_us := session.certificate_ends_us) is not None:
                    self._telemetry.certificate_ends.labels("broker").set(ends_us / 1e6)
                if not session.is_connected:
                    break  # that may have taken long; the others are tried at the next turns
        self._waiting.rest(min(self._next_read - time.monotonic(), self._patience_s()))
        found = self._waiting.wait(self._patience_s())
        self._first = (self._first + 1) % max(len(found), 1)  # where there is more than a group has room for, each has its turn
        for session, readable, writable in found[self._first :] + found[: self._first]:
            self._read(session, readable=readable, writable=writable)
        with suppress(BlockingIOError):  # nobody has rung
            os.eventfd_read(self._bell)
        if self._stop.is_set():
            return
        is_tick = time.monotonic() >= self._next_tick
        if is_tick or self._is_full or self._held_s() <= 0:  # before a tick all of it: partitions may be let go of then
            self._process(everything=True)
        elif self._is_called or self._shares.due_s(self._now_us()) == 0:
            self._process(everything=False)
        if is_tick:
            self._tick()
        self._speak_if_due()
        for session in self._touched:
            session.flush()
            self._waiting.look(session)
            (self._down.discard if session.why is None else self._down.add)(session)
        self._touched.clear()
        self._say_faults()

    def _read(self, session: Session, *, readable: bool, writable: bool) -> None:
        """Takes what there is room for, and notes how soon it must be looked at."""
        here = len(session.arrived)
        self._room_bytes = session.turn(
            readable=readable, writable=writable, most=here + self._room, most_bytes=self._room_bytes
        )  # fmt: skip
        self._touched.add(session)
        if not session.arrived:
            return
        self._spoke[session], self._last_read_s = None, time.monotonic()
        new = session.arrived[here:]
        self._room -= len(new)
        is_enough = len(session.arrived) >= ENOUGH
        self._is_full |= self._room <= 0 or self._room_bytes <= 0
        self._is_called = self._is_called or is_enough or any(map(is_waited_for, new))
        self._next_read = -math.inf if is_enough or self._is_full else self._last_read_s + REST_S

    def _patience_s(self) -> float:
        """How long to wait for the broker's next word."""
        if self._is_full:
            return 0.0
        due_s = self._shares.due_s(self._now_us())
        lost = [session.due_s() for session in self._down if not session.is_connected]
        patience_s = min([TICK_S / 2, self._next_tick - time.monotonic(), self._held_s(), *lost])
        return max(patience_s if due_s is None else min(patience_s, due_s), 0.0)

    def _held_s(self) -> float:
        """How long what nobody waits for may be held still."""
        if not (self._spoke or self._held):
            return HELD_S
        until_s = self._grouped_s + HELD_S
        if GROUP - self._room >= ENOUGH:
            until_s = min(until_s, self._last_read_s + QUIET_S)
        return until_s - time.monotonic()

    def _say_faults(self) -> None:
        """Once when it goes down, once when all of it is back."""
        faults = [session.why for session in self._down if session.why is not None]
        said = [fault for fault in faults if fault != NOT_YET]
        if said and not self._said_down:
            self._said_down = True
            log.error("the broker is not connected (%s); trying again until it is", said[0])
        elif not faults and self._said_down:
            self._said_down = False
            log.warning("the broker is connected again")
        self._telemetry.broker_up.set(1 if self._sessions and not faults else 0)

    def _process(self, *, everything: bool) -> None:
        """What has come as a group, and what is held with it; or what of it somebody waits for, and the rest is held."""
        now_us = self._now_us()
        spoke, self._spoke = list(self._spoke), {}
        group = [message for session in spoke for message in session.arrived]
        if everything:
            group, self._held = self._held + group, []
            self._grouped_s = time.monotonic() if group else self._grouped_s
        else:
            group, self._held = _overtaking(self._held, group)
        self._room = GROUP - len(self._held)
        self._room_bytes = GROUP_BYTES - sum(len(message.payload) for message in self._held)
        self._is_called, self._is_full = False, self._room <= 0 or self._room_bytes <= 0
        self._telemetry.group_since.set(now_us / 1e6 if group else 0)
        acks: list[Answer] | None = []
        if messages := self._shares.take(group, now_us):
            acks = self._processed(messages, now_us, self._away_us(now_us))
        if acks is None:
            return
        self._answer(acks)
        for session in spoke:
            session.acknowledge()
            self._touched.add(session)
        self._telemetry.group_since.set(0)

    def _away_us(self, now_us: int) -> int | None:
        """Since when messages may have waited in the broker, of any session; None: none can have."""
        away_us: int | None = None
        for session in self._sessions.values():
            if session.away_since_us is not None and now_us - (session.connected_us or now_us) < CATCH_UP_US:
                away_us = min(session.away_since_us, away_us or now_us)
        return away_us

    def _processed(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer] | None:
        """The acks to publish; None where it was stopped while the database could not be written."""
        while True:
            try:
                acks = self._processor.process(messages, now_us, away_since_us)
            except OperationalError as error:
                if self._database_fault is None:
                    self._database_fault = f"the state database can't be written: {error.orig}"
                    log.error("%s; nothing is acknowledged until it can", self._database_fault)
                if self._stop.wait(TICK_S):
                    return None
                continue
            if self._database_fault is not None:
                # What arrived meanwhile waited in the broker, as if we had been away.
                for session in self._sessions.values():
                    session.interrupted(now_us)
                self._database_fault = None
                log.warning("the state database can be written again")
            return acks

    def _answer(self, acks: list[Answer]) -> None:
        """With QoS 0, but for what must arrive: a node that hears nothing sends again, and is answered again."""
        together: dict[Session, list[tuple[str, bytes]]] = {}
        for topic, payload, surely in acks:
            if surely:
                self._publish(topic, payload)
            elif (session := self._session_of(topic)) is not None:
                together.setdefault(session, []).append((topic, payload))
        for session, theirs in together.items():
            session.publish_all(theirs)
            self._touched.add(session)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if (session := self._session_of(topic)) is not None:
            session.publish(topic, payload, retain=retain)
            self._touched.add(session)

    def _session_of(self, topic: str) -> Session | None:
        """That of its partition; None: a partition that is not heard here is spoken to by who hears it."""
        if (whole := self._sessions.get(None)) is not None:
            return whole
        return self._sessions.get(partition_of(parse(topic).node))

    def _tick(self) -> None:
        self._next_tick = time.monotonic() + TICK_S
        self._shares.tick(self._now_us())
        for session in self._sessions.values():
            session.turn(readable=False, writable=False, most=0, most_bytes=0)  # does it hear of the broker still?
            self._touched.add(session)
        try:
            whole = self._sessions.get(None)
            self._processor.tick(self._now_us(), whole.since_us if whole is not None else None)
            if self._partitions is not None:
                self._arrange(self._partitions)
            self._said_stuck = False
        except OperationalError as error:
            if not self._said_stuck:
                self._said_stuck = True
                log.error("time can't pass for the rules: the state database: %s", error.orig)

    def _save(self) -> None:
        """At the end: what the next ticks would have done. Where that can't be, nothing waits for it."""
        if self._database_fault is not None or self._said_stuck:
            return
        if self._held:
            self._process(everything=True)
        try:
            self._processor.save()
        except OperationalError as error:
            log.error("the newest readings are not all saved; they are again as soon as their nodes speak: %s", error.orig)

    def _arrange(self, partitions: Partitions) -> None:
        """Lets go of some partitions, and takes others up. Between two groups: nothing that was read is unprocessed."""
        held = {partition: session.since_us for partition, session in self._sessions.items() if partition is not None}
        new, over = partitions.look(held)
        if over:
            self._processor.save()  # before anything else: of what is let go of, others write from now on
        for partition in over:
            session = self._sessions.pop(partition)
            session.close()
            self._down.discard(session)
            self._touched.discard(session)  # else one that was not heard yet would count as down, and be connected again
            self._waiting.forget(session)
        if over:
            self._shares.forget(lambda node: partition_of(node) in over)
            partitions.let_go(over)
        if new:
            self._processor.anew()  # where that fails there are no sessions either, and the next look begins anew
        for one in new:
            name = f"{self._config.client_id}-{one.partition:02d}"
            filters = up_filters(one.partition)
            self._begin(one.partition, Session(self._config, name, filters, self._rng, self._now_us, one.heard_us, one.since_us))

    def hears(self, node: str) -> bool:
        """Whether this process is the one that hears this node, and does now. For who publishes through it."""
        session = self._sessions.get(None) or self._sessions.get(partition_of(node))
        return session is not None and session.since_us is not None

    def _speak_if_due(self) -> None:
        is_due = self._outgoing is not None and (self._rung.is_set() or time.monotonic() >= self._next_speech)
        if not self._own and not is_due:
            return
        up = [session for session in self._sessions.values() if session.since_us is not None]
        if not up:
            return
        while self._own:
            self._publish(*self._own.popleft())
        if self._outgoing is None or not is_due:
            return
        self._rung.clear()  # before we look: who rings from now on is heard at the next turn
        self._next_speech = time.monotonic() + TICK_S
        try:
            found = self._outgoing.messages(self._now_us(), anew=any(session.is_new for session in up))
        except OperationalError as error:
            if not self._said_mute:
                self._said_mute = True
                log.error("nodes can't be told anything but acks: the state database: %s", error.orig)
            return
        if self._said_mute:
            log.warning("nodes can be told again what they should know")
        self._said_mute = False
        for session in up:
            session.is_new = False
        for topic, payload, retain in found:
            self._publish(topic, payload, retain=retain)


def _overtaking(held: list[Message], new: list[Message]) -> tuple[list[Message], list[Message]]:
    """(what goes through now, what is held): an event overtakes readings, but no event of its own node."""
    calls = [False] * len(held) + [is_waited_for(message) for message in new]
    found = held + new
    called = {message.topic for message, is_call in zip(found, calls, strict=True) if is_call}
    group: list[Message] = []
    kept: list[Message] = []
    for message, is_call in zip(found, calls, strict=True):
        is_next = is_call or (message.topic in called and _NO_EVENTS not in message.payload)
        (group if is_next else kept).append(message)
    return group, kept


def is_waited_for(message: Message) -> bool:
    """Whether somebody may wait for what comes of a message: an event, what waited before, what a node says of itself. False of
    live readings, and of tags that are there still: these are shown and judged at ticks, and their node sends the next ones
    without an answer to these, and these again if they should be lost here.

    Of its JSON it sees no more than the events' types as our nodes write them; what is written otherwise only costs a group.
    """
    if not message.topic.endswith(_LIVE):
        return True
    payload = message.payload
    return _NO_EVENTS not in payload and not 0 < payload.count(_TYPE) == payload.count(_SEEN_STILL)
