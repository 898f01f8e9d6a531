"""The link to the broker: paho-mqtt in a thread of its own, one client a connection, full-jitter backoff, last will.

It knows MQTT and nothing of records: `agent` hands it messages and gets back what came down. A client is never reused after
a lost connection, so that nothing old sits in its queue: what is unacked is made anew from the outbox.
"""

import logging
import random
import ssl
import threading
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
        self._host, self._port, self._tls = parse_url(config.url)
        self._config, self._words, self._listener, self._rng = config, words, listener, rng
        self._stop = threading.Event()
        self._client: mqtt.Client | None = None
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        """Begins connecting, at once and then for ever."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hands a message to the client, QoS 1. Without a connection it is dropped: the outbox still has it."""
        client = self._client
        if client is not None:
            client.publish(topic, payload, qos=1, retain=retain)

    def stop(self, timeout_s: float = 5) -> None:
        """Sends what is queued (a clean farewell), disconnects, ends the thread."""
        self._stop.set()
        client = self._client
        if client is not None:
            client.disconnect()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            was_up = self._connection()
            failures = 0 if was_up else failures + 1
            # Full jitter: a thousand nodes that lost one broker do not come back in step.
            ceiling = min(self._config.backoff_cap_s, 2.0 ** min(failures, 10))
            self._stop.wait(self._rng.uniform(0, ceiling))

    def _connection(self) -> bool:
        """One connection from beginning to end. Whether it ever came up."""
        up = threading.Event()
        client = self._new_client(up)
        try:
            client.connect(self._host, self._port, keepalive=self._config.keepalive_s)
        except (OSError, ValueError, ssl.SSLError) as error:
            self._listener.link_down(f"{self._host}:{self._port}: {error}")
            return False
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        while code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = client.loop(1.0)
        self._client = None
        if not self._stop.is_set():
            self._listener.link_down(mqtt.error_string(code))
        return up.is_set()

    def _new_client(self, up: threading.Event) -> mqtt.Client:
        config, words = self._config, self._words
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, words.client_id, clean_session=False, protocol=MQTTProtocolVersion.MQTTv311
        )
        client.max_inflight_messages_set(100)  # more than all lanes' windows together
        client.connect_timeout = 10
        client.will_set(words.will_topic, words.will, qos=1, retain=True)
        if config.username is not None:
            client.username_pw_set(config.username, _secret(config.password_file))
        if self._tls:
            ca, certificate, key = (
                str(path) if path else None for path in (config.ca_file, config.certificate_file, config.key_file)
            )
            client.tls_set(ca, certificate, key)

        def connected(
            client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, code: ReasonCode, _p: Properties | None
        ) -> None:
            if code.is_failure:
                self._listener.link_down(f"the broker refused: {code}")
                client.disconnect()
            else:
                client.subscribe(words.listen, qos=1)

        def subscribed(client: mqtt.Client, _data: object, _mid: int, _codes: list[ReasonCode], _p: Properties | None) -> None:
            self._client = client
            up.set()
            self._listener.link_up()

        def message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            self._listener.received(message.topic, bytes(message.payload))

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = message
        return client


def _secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"broker.password_file: {path} can't be read: {error.strerror}") from error
