"""MQTT into the pipeline: one thread that reads what is there, has it processed as one group, then acknowledges.

A group is what has arrived, up to a size: nothing ever waits for more to come, so no broker's in-flight limit can stall it, and
under load the groups grow by themselves. MQTT's acknowledgement is flow control only; what nodes go by is the `down/ack`: what a
node sends beyond its share (gateway.shares) is acknowledged to the broker and waits, or is left unread until it comes again.
"""

import logging
import os
import random
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import Field
from sqlalchemy.exc import OperationalError

from edge.contract.broker import BrokerConfig, parse_url
from edge.contract.names import Name
from edge.contract.topics import up_filters
from gateway.buffered import BufferedClient, Published
from gateway.errors import ConfigError
from gateway.nodes.outgoing import Outgoing
from gateway.pipeline import Message
from gateway.secret_files import read_secret, read_secret_text
from gateway.shares import ShareConfig, Shares
from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

GROUP, GROUP_BYTES = 1000, 4 * 1024 * 1024  # what is read at once: one node's large messages must not keep the others waiting
OWN_WAITING = 10  # of the gateway's own records: who gives one gives it again until it is known to have come
TICK_S = 1.0
CATCH_UP_US = 10 * 60 * 1_000_000
"""For this long after connecting, messages may have waited in the broker while nobody listened."""


class GatewayBrokerConfig(BrokerConfig):
    """`[broker]`: where the broker is, and under which name the gateway goes there."""

    client_id: Name = Field("satomori-gateway", description="Names the session that the broker keeps for this gateway.")


class Processor(Protocol):
    """What ingest hands its groups to; gateway.pipeline.Pipeline is one."""

    def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[tuple[str, bytes]]:
        """Returns the acks to publish."""
        ...

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass."""
        ...


class _Arrived(NamedTuple):
    """A message and the number MQTT knows it by in this connection."""

    message: Message
    mid: int
    qos: int


class Ingest:
    """One gateway's session with the broker, kept up by `run` until `stop`."""

    def __init__(
        self,
        config: GatewayBrokerConfig,
        processor: Processor,
        telemetry: Telemetry,
        rng: random.Random,
        now_us: Callable[[], int],
        listened_until_us: int | None,
        outgoing: Outgoing | None = None,
        shares: Shares | None = None,
    ) -> None:
        """`listened_until_us`: when an earlier run of this gateway last listened; None if none did.

        `outgoing` is asked what else to publish, once a second and when somebody rings. `shares`: how much of a group each node
        may have. ConfigError when what the configuration says to show to the broker can't be used.
        """
        self._host, self._port, self._tls = parse_url(config.url)
        self._config, self._processor, self._telemetry = config, processor, telemetry
        self._rng, self._now_us = rng, now_us
        self._outgoing, self._rung = outgoing, threading.Event()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # wakes a thread that waits for the broker's next word
        weakref.finalize(self, os.close, self._bell)
        self._shares = shares or Shares(ShareConfig())
        self._own: deque[tuple[str, bytes]] = deque(maxlen=OWN_WAITING)
        self._new_session, self._said_mute, self._next_speech = True, False, 0.0
        self._stop = threading.Event()
        self._arrived: list[_Arrived] = []
        self._said_down = self._said_stuck = False
        self._since_us: int | None = None
        self._away_since_us = listened_until_us
        self._next_tick = 0.0
        self.fault: str | None = "not connected yet"
        """Why messages are not flowing now; None while they are."""
        self._new_client()  # so that a wrong file is said at the start, to who starts it

    def stop(self) -> None:
        """Asks `run` to end; safe from any thread."""
        self._stop.set()

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
        failures = 0
        while not self._stop.is_set():
            was_up = self._connection()
            if self._since_us is not None:
                self._away_since_us, self._since_us = self._now_us(), None
            failures = 0 if was_up else failures + 1
            pause_until = time.monotonic() + self._rng.uniform(0, min(self._config.backoff_cap_s, 2.0 ** min(failures, 10)))
            while not self._stop.wait(min(TICK_S, max(pause_until - time.monotonic(), 0))):
                self._tick_if_due()
                if time.monotonic() >= pause_until:
                    break

    def _connection(self) -> bool:
        """One connection from beginning to end. Whether it ever came up."""
        self._arrived = []  # what an earlier connection left unacknowledged comes again
        try:
            client = self._new_client()
        except ConfigError as error:
            self._down(str(error))  # a certificate that is just being replaced, say
            return False
        try:
            client.connect(self._host, self._port, keepalive=self._config.keepalive_s)
        except (OSError, ValueError, ssl.SSLError) as error:
            self._down(f"{self._host}:{self._port}: {error}")
            return False
        while client.socket() is not None:
            if self._stop.is_set():
                client.disconnect()
                break
            readable, writable = client.wait(self._patience_s(), self._bell)
            with suppress(BlockingIOError):  # nobody has rung
                os.eventfd_read(self._bell)
            code = MQTTErrorCode.MQTT_ERR_SUCCESS
            if readable:
                code = self._read(client)
            if writable and code == MQTTErrorCode.MQTT_ERR_SUCCESS:
                code = client.loop_write()
            if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
                code = client.loop_misc()
            if code == MQTTErrorCode.MQTT_ERR_NO_CONN:
                break  # hung up by ourselves, and said why
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._down(mqtt.error_string(code))
                break
            self._process(client)
            self._tick_if_due()
            self._speak_if_due(client)
            if (code := client.flush()) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._down(mqtt.error_string(code))
                break
        was_up = self._since_us is not None
        if was_up and not self._stop.is_set():
            self._down("connection lost")
        self._telemetry.broker_up.set(0)
        return was_up

    def _read(self, client: BufferedClient) -> MQTTErrorCode:
        """Reads packets until none is complete, or a group is full. paho keeps the rest of a half-read packet."""
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        before, room = -1, GROUP_BYTES
        while code == MQTTErrorCode.MQTT_ERR_SUCCESS and len(self._arrived) < GROUP and room > 0:
            if before == len(self._arrived) and not client.ahead:
                break
            before = len(self._arrived)
            code = client.loop_read()
            if len(self._arrived) > before:
                room -= len(self._arrived[-1].message.payload)
        return code

    def _patience_s(self) -> float:
        """How long to wait for the broker's next word."""
        due_s = self._shares.due_s(self._now_us())
        return TICK_S / 2 if due_s is None else min(due_s, TICK_S / 2)

    def _process(self, client: BufferedClient) -> None:
        arrived, self._arrived = self._arrived, []
        now_us = self._now_us()
        since_us = self._since_us or now_us
        away_since_us = self._away_since_us if now_us - since_us < CATCH_UP_US else None
        messages = self._shares.take((one.message for one in arrived), now_us)
        complained = False
        acks: list[tuple[str, bytes]] = []
        while messages:
            try:
                acks = self._processor.process(messages, now_us, away_since_us)
                break
            except OperationalError as error:
                if not complained:
                    complained = True
                    self.fault = f"the state database can't be written: {error.orig}"
                    log.error("%s; nothing is acknowledged until it can", self.fault)
                if self._stop.wait(TICK_S):
                    return
        if complained:
            # What arrived meanwhile waited in the broker, as if we had been away.
            self._away_since_us, self._since_us = now_us, self._now_us()
            self.fault = None
            log.warning("the state database can be written again")
        for topic, payload in acks:
            client.publish(topic, payload, qos=1)
        for one in arrived:
            client.ack(one.mid, one.qos)

    def _tick_if_due(self) -> None:
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_S
            self._shares.tick(self._now_us())
            try:
                self._processor.tick(self._now_us(), self._since_us)
                self._said_stuck = False
            except OperationalError as error:
                if not self._said_stuck:
                    self._said_stuck = True
                    log.error("time can't pass for the rules: the state database: %s", error.orig)

    def _speak_if_due(self, client: BufferedClient) -> None:
        if self._since_us is None:
            return
        while self._own:
            topic, payload = self._own.popleft()
            client.publish(topic, payload, qos=1)
        if self._outgoing is None:
            return
        if not self._rung.is_set() and time.monotonic() < self._next_speech:
            return
        self._rung.clear()  # before we look: who rings from now on is heard at the next turn
        self._next_speech = time.monotonic() + TICK_S
        try:
            found = self._outgoing.messages(self._now_us(), anew=self._new_session)
        except OperationalError as error:
            if not self._said_mute:
                self._said_mute = True
                log.error("nodes can't be told anything but acks: the state database: %s", error.orig)
            return
        if self._said_mute:
            log.warning("nodes can be told again what they should know")
        self._new_session = self._said_mute = False
        for topic, payload, retain in found:
            client.publish(topic, payload, qos=1, retain=retain)

    def _down(self, reason: str) -> None:
        self.fault = f"broker not connected: {reason}"
        if not self._said_down:
            self._said_down = True
            log.error("the broker is not connected (%s); trying again until it is", reason)

    def _new_client(self) -> BufferedClient:
        config = self._config
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            config.client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        # No limit of our own: with one, paho looks through all acks in flight at each PUBACK.
        client.max_inflight_messages_set(0)
        client.connect_timeout = 10
        credentials(client, config, tls=self._tls)

        def connected(
            client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, code: ReasonCode, _p: Properties | None
        ) -> None:
            if code.is_failure:
                self._down(f"the broker refused: {code}")
                client.disconnect()
            else:
                client.subscribe([(topic, 1) for topic in up_filters()])

        def subscribed(client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
            if any(code.is_failure for code in codes):
                self._down(f"the broker refused the subscription to {up_filters()}")
                client.disconnect()
                return
            if self._said_down:
                log.warning("the broker is connected again")
            self._said_down, self.fault = False, None
            self._since_us, self._new_session = self._now_us(), True
            self._telemetry.broker_up.set(1)

        def message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            try:
                topic = message.topic
            except UnicodeDecodeError:
                topic = repr(message._topic)
            self._arrived.append(_Arrived(Message(topic, bytes(message.payload), message.retain), message.mid, message.qos))

        def published(message: Published) -> None:
            try:
                topic = message.topic.decode()
            except UnicodeDecodeError:
                topic = repr(message.topic)
            self._arrived.append(_Arrived(Message(topic, message.payload, message.retain), message.mid, message.qos))

        client.on_published = published
        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = message
        return client


def credentials(client: mqtt.Client, config: BrokerConfig, *, tls: bool) -> None:
    """Gives the client what the configuration says it shows to the broker. ConfigError when a file can't be read."""
    if config.username is not None:
        client.username_pw_set(config.username, _secret(config.password_file))
    if tls:
        client.tls_set_context(_tls(config))


def _tls(config: BrokerConfig) -> ssl.SSLContext:
    """Whom we believe and what we show. ConfigError that names the file at fault, and what is wrong with it."""
    setting, path = "ca_file", config.ca_file
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.certificate_file is not None:
            # Read first, for OpenSSL would not say which of the two it could not read.
            setting, path = "certificate_file", config.certificate_file
            config.certificate_file.read_bytes()
            if config.key_file is not None:
                read_secret(config.key_file, "broker.key_file")
            setting, path = "certificate_file and key_file", config.certificate_file
            # Without a password, a key that has one would make OpenSSL ask for it on the terminal.
            context.load_cert_chain(config.certificate_file, config.key_file, password="")
    except ssl.SSLError as error:
        raise ConfigError(f"broker.{setting}: {path} is not what it should be, in PEM: {error}") from error
    except OSError as error:
        raise ConfigError(f"broker.{setting}: {path} can't be read: {error.strerror}") from error
    return context


def _secret(path: Path | None) -> str | None:
    if path is None:
        return None
    return read_secret_text(path, "broker.password_file").strip()
