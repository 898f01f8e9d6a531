"""The link to the broker: paho-mqtt in a thread of its own, one client a connection, full-jitter backoff, last will.

It knows MQTT and nothing of records: `agent` hands it messages and gets back what came down. A client is never reused after
a lost connection, so that nothing old sits in its queue: what is unacked is made anew from the outbox. Only the link's own
thread touches the socket.
"""

import logging
import random
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.contract.broker import BrokerConfig, parse_url
from edge.errors import ConfigError

log = logging.getLogger(__name__)

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
    listen: str
    will_topic: str
    will: bytes


class MqttLink:
    """One node's connection, kept up until `stop`. `publish` may be called from any thread."""

    def __init__(self, config: BrokerConfig, words: LinkWords, listener: Listener, rng: random.Random) -> None:
        """Opens nothing but the files that the configuration names. ConfigError when one of them can't be used."""
        self._host, self._port, _ = parse_url(config.url)
        self._config, self._words, self._listener, self._rng = config, words, listener, rng
        make_client(config, words.client_id)
        self._stop = threading.Event()
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

    def stop(self, timeout_s: float = 5) -> None:
        """Sends what is queued (a clean farewell), disconnects, ends the thread."""
        self._stop.set()
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
            self._stop.wait(self._rng.uniform(0, ceiling))

    def _connection(self) -> None:
        """One connection from beginning to end; what ended it is told to the listener."""
        client = None
        try:
            client = self._new_client()
            client.connect(self._host, self._port, keepalive=self._config.keepalive_s)
            code = MQTTErrorCode.MQTT_ERR_SUCCESS
            while code == MQTTErrorCode.MQTT_ERR_SUCCESS:
                code = client.loop(1.0)
                if self._stop.is_set() and self._client is None:  # `stop` came before the broker had answered
                    client.disconnect()
                    break
            reason = mqtt.error_string(code)
        except (OSError, ValueError) as error:  # ConfigError too: a certificate may vanish while we run
            reason = f"{self._host}:{self._port}: {error}"
        except Exception as error:
            # What a broken broker can do to paho is not listed anywhere; without this thread the node would be mute for ever.
            log.exception("the link failed; connecting anew")
            reason = f"the link failed: {error!r}"
        self._client = self._last = None
        if client is not None and (left_open := client.socket()) is not None:
            left_open.close()
        if not self._stop.is_set():
            self._listener.link_down(reason)

    def _new_client(self) -> mqtt.Client:
        words = self._words
        client = make_client(self._config, words.client_id)
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
                client.subscribe(words.listen, qos=1)

        def subscribed(client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
            if any(code.is_failure for code in codes):
                self._listener.link_down(f"the broker does not let this node listen to {words.listen}")
                client.disconnect()
            else:
                self._client = client
                self._listener.link_up()
                if self._stop.is_set():  # `stop` may just have looked, and seen no client
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


def make_client(config: BrokerConfig, client_id: str) -> mqtt.Client:
    """A client with what the configuration says it shows to the broker, not connected.

    ConfigError when a file can't be used.
    """
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id,
        clean_session=False,
        protocol=MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    if config.username is not None:
        client.username_pw_set(config.username, _secret(config.password_file))
    if parse_url(config.url).tls:
        client.tls_set_context(_tls(config))
    return client


def _tls(config: BrokerConfig) -> ssl.SSLContext:
    """Each file on its own, so that the error can name it."""
    setting = "ca_file"
    path = config.ca_file
    try:
        context = ssl.create_default_context(cafile=path)
        if config.certificate_file is not None:
            setting, path = "certificate_file", config.certificate_file
            path.read_bytes()
            if config.key_file is not None:
                setting, path = "key_file", config.key_file
                path.read_bytes()
                setting = "certificate_file and key_file"
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
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"broker.password_file: {path} is no UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"broker.password_file: {path} can't be read: {error.strerror}") from error
