"""The link to the broker: paho-mqtt in a thread of its own, one client a connection, full-jitter backoff, last will.

It knows MQTT and nothing of records: `agent` hands it messages and gets back what came down. A client is never reused after
a lost connection, so that nothing old sits in its queue: what is unacked is made anew from the outbox. Only the link's own
thread touches the socket.
"""

import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.contract.broker import BrokerConfig, parse_url
from edge.errors import ConfigError
from edge.tls import client_context, waives_dates

log = logging.getLogger(__name__)

MAX_PACKET = 256 * 1024
"""Twice what our brokers let through. Whoever speaks in a broker's place must not be able to fill the memory of a Pi."""
STEADY_S = 60
"""A connection that lasted so long was a good one: the next attempt comes at once. Two nodes of one name lose theirs sooner."""


class Listener(Protocol):
    """Who is told what the link does. Called from the link's own thread."""

    def link_up(self) -> None:
        """Connected and subscribed."""
        ...

    def link_down(self, reason: str) -> None:
        """Not connected any more, or could not connect."""
        ...

    def received(self, topic: str, payload: bytes) -> None:
        """A message came down."""
        ...


@dataclass(frozen=True)
class LinkWords:
    """What a link says of its node: client id, where it listens, and the will the broker speaks for it."""

    client_id: str
    listen: tuple[str, ...]
    """Topic filters. Without the first a link is of no use; a broker that refuses one of the others is only told of."""
    will_topic: str
    will: bytes


class MqttLink:
    """One node's connection, kept up until `stop`. `publish` may be called from any thread."""

    def __init__(
        self,
        config: BrokerConfig,
        words: LinkWords,
        listener: Listener,
        rng: random.Random,
        clock_state: Callable[[], str] = lambda: "sync",
    ) -> None:
        """Opens nothing but the files that the configuration names. ConfigError when one of them can't be used.

        `clock_state` is asked at each connection, from the link's own thread.
        """
        self._config, self._words, self._listener, self._rng = config, words, listener, rng
        self._clock_state = clock_state
        make_client(config, words.client_id)
        self._turn = 0  # counts the calls of `use`: a connection of an earlier turn ends itself
        self._refused: set[str] = set()
        self._waives = False
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._client: mqtt.Client | None = None
        self._last: mqtt.MQTTMessageInfo | None = None
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        """Begins connecting, at once and then for ever."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hands a message to the client, QoS 1. Without a connection it is dropped: the outbox still has it."""
        client = self._client
        if client is not None:
            self._last = client.publish(topic, payload, qos=1, retain=retain)

    def use(self, config: BrokerConfig) -> None:
        """From now on this broker, over a new connection; its files are read anew. ConfigError when one can't be used."""
        make_client(config, self._words.client_id)
        self._config = config
        self._turn += 1
        self._hurry.set()
        client = self._client
        if client is not None:
            client.disconnect()

    def stop(self, timeout_s: float = 5) -> None:
        """Sends what is queued (a clean farewell), disconnects, ends the thread."""
        self._stop.set()
        self._hurry.set()
        client, last = self._client, self._last
        if client is not None:
            if last is not None:
                # A socket closed with PUBACKs unread in it is reset, and the broker would throw away what it had not read.
                try:
                    last.wait_for_publish(timeout_s)
                except (ValueError, RuntimeError):  # it was not even queued
                    pass
            client.disconnect()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            self._connection()
            failures = 0 if time.monotonic() - began > STEADY_S else failures + 1
            # Full jitter: a thousand nodes that lost one broker do not come back in step.
            ceiling = min(self._config.backoff_cap_s, 2.0 ** min(failures, 10))
            pause_s = self._rng.uniform(0, ceiling)
            if self._hurry.wait(pause_s) and not self._stop.is_set():
                self._hurry.clear()
                failures = 0

    def _connection(self) -> None:
        """One connection from beginning to end; what ended it is told to the listener."""
        client = None
        turn, config = self._turn, self._config
        host, port, _ = parse_url(config.url)
        try:
            client = self._new_client(config, turn)
            client.connect(host, port, keepalive=config.keepalive_s)
            code = MQTTErrorCode.MQTT_ERR_SUCCESS
            while code == MQTTErrorCode.MQTT_ERR_SUCCESS:
                code = client.loop(1.0)
                # `stop` or `use` came before the broker had answered.
                if self._client is None and (self._stop.is_set() or self._turn != turn):
                    client.disconnect()
                    break
            reason = mqtt.error_string(code)
        except (OSError, ValueError) as error:  # ConfigError too: a certificate may vanish while we run
            reason = f"{host}:{port}: {error}"
        except Exception as error:
            # What a broken broker can do to paho is not listed anywhere; without this thread the node would be mute for ever.
            log.exception("the link failed; connecting anew")
            reason = f"the link failed: {error!r}"
        self._client = self._last = None
        if client is not None and (left_open := client.socket()) is not None:
            left_open.close()
        if not self._stop.is_set():
            self._listener.link_down(reason)

    def _new_client(self, config: BrokerConfig, turn: int) -> mqtt.Client:
        words, clock = self._words, self._clock_state()
        self._say_waived(config, clock)
        client = make_client(config, words.client_id, clock)
        client.max_inflight_messages_set(100)  # more than all lanes' windows together
        client.max_queued_messages_set(1000)  # a broker that takes all and acknowledges nothing must not fill the memory
        client.connect_timeout = 10
        client.will_set(words.will_topic, words.will, qos=1, retain=True)

        def connected(
            client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, code: ReasonCode, _p: Properties | None
        ) -> None:
            if code.is_failure:
                self._listener.link_down(f"the broker refused: {code}")
                client.disconnect()
            else:
                client.subscribe([(topic, 1) for topic in words.listen])

        def subscribed(client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
            if codes[0].is_failure:
                self._listener.link_down(f"the broker does not let this node listen to {words.listen[0]}")
                client.disconnect()
            else:
                self._note_refusals({topic for topic, code in zip(words.listen, codes, strict=False) if code.is_failure})
                self._client = client
                self._listener.link_up()
                if self._stop.is_set() or self._turn != turn:  # `stop` or `use` may just have looked, and seen no client
                    client.disconnect()

        def message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            self._listener.received(message.topic, bytes(message.payload))

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = message
        # With this, paho only queues what another thread publishes and wakes `loop`; without, it would write to the socket from
        # that thread too, and two halves of packets could mix.
        client.on_socket_register_write = lambda *_: None
        return client

    def _say_waived(self, config: BrokerConfig, clock: str) -> None:
        waives = parse_url(config.url).tls and waives_dates(config.ca_file, clock)
        if waives and not self._waives:
            log.warning("this node's clock was never set, so the dates of the broker's certificate are not judged; "
                        "%s must vouch for it all the same", config.ca_file)  # fmt: skip
        elif self._waives and not waives:
            log.warning("the clock is set: the dates of the broker's certificate are judged again")
        self._waives = waives

    def _note_refusals(self, refused: set[str]) -> None:
        """Says which topics besides the first a broker does not let us hear: the records matter more than they do."""
        for topic in sorted(refused - self._refused):
            log.error("the broker does not let this node listen to %s; see the broker's rights", topic)
        self._refused = refused


class _Client(mqtt.Client):
    """paho's, which would otherwise make room for whatever length a packet announces, and hold answers back."""

    def _create_socket_connection(self) -> socket.socket:
        sock = super()._create_socket_connection()
        # Else the kernel keeps an answer for some 40 ms, until the broker has acknowledged the PUBACK before it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MAX_PACKET:
            # Not as OSError, which paho would take for a lost connection and say nothing of.
            raise ValueError(f"the broker announces a packet of {bufsize} bytes, at most {MAX_PACKET}")
        return super()._sock_recv(bufsize)


def make_client(config: BrokerConfig, client_id: str, clock: str = "sync") -> mqtt.Client:
    """A client with what the configuration says it shows to the broker, not connected.

    `clock` is this node's (see edge.tls). ConfigError when a file can't be used.
    """
    client = _Client(
        CallbackAPIVersion.VERSION2,
        config.client_id or client_id,
        clean_session=False,
        protocol=MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    if config.username is not None:
        client.username_pw_set(config.username, _secret(config.password_file))
    if parse_url(config.url).tls:
        client.tls_set_context(client_context("broker", config.ca_file, config.certificate_file, config.key_file, clock=clock))
    return client


def _secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"broker.password_file: {path} is no UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"broker.password_file: {path} can't be read: {error.strerror}") from error
