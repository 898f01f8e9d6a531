"""One session with the broker: connects, subscribes, reads, writes, acknowledges. What the messages mean is not its business.

A session is kept by the broker under its client id while nobody is connected, so whoever comes with that id next gets what came
meanwhile. One thread uses it, and waits for several of them at once (`Waiting`).
"""

import random
import select
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.contract.broker import BrokerConfig, parse_url
from gateway.buffered import BufferedClient, BufferedSocket
from gateway.errors import ConfigError
from gateway.flush import Message
from gateway.secret_files import read_secret, read_secret_text

NOT_YET = "it has not been tried yet"


class Session:
    """Kept up by who calls `connect` when it `is_due`, then `turn` again and again."""

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        filters: Sequence[str],
        rng: random.Random,
        now_us: Callable[[], int],
        listened_until_us: int | None,
        since_us: int | None = None,
    ) -> None:
        """`listened_until_us`: when somebody last listened in this session; None if nobody did. `since_us`: since when without a
        break worth the name, if so. ConfigError when what the configuration says to show to the broker can't be used.
        """
        self._host, self._port, self._tls = parse_url(config.url)
        self._config, self._client_id, self._filters, self._rng, self._now_us = config, client_id, list(filters), rng, now_us
        self._client: BufferedClient | None = None
        self._failures, self._due = 0, 0.0
        self._unbroken_us = since_us
        self.arrived: list[Message] = []
        """Read and not acknowledged yet."""
        self._unacknowledged: list[tuple[int, int]] = []  # their numbers in this connection, and QoS
        self.since_us: int | None = None
        """Since when it has been listening; None while it does not."""
        self.connected_us: int | None = None
        """Since when this connection listens: until a while after that, messages may come that waited in the broker."""
        self.away_since_us = listened_until_us
        """When it last listened before that."""
        self.why: str | None = NOT_YET
        """Why it does not listen; None while it does."""
        self.is_new = True
        """It listens, and nobody has said anything in this connection yet. Who says something sets it to False."""
        self._new_client()  # so that a wrong file is said at the start, to who starts it

    @property
    def certificate_ends_us(self) -> int | None:
        """Until when the certificate is good that the broker has shown; None without a connection over TLS."""
        return None if self._client is None else certificate_ends_us(self._client)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, which need not listen yet."""
        return self._client is not None

    def due_s(self) -> float:
        """In how many seconds it should connect; 0 where it should by now."""
        return max(self._due - time.monotonic(), 0.0)

    def connect(self) -> None:
        """Tries to. What comes of it shows in `why`."""
        self.arrived, self._unacknowledged = [], []  # what an earlier connection left unacknowledged comes again
        try:
            client = self._new_client()
        except ConfigError as error:
            self._lost(str(error))  # a certificate that is just being replaced, say
            return
        try:
            client.connect(self._host, self._port, keepalive=self._config.keepalive_s)
        except (OSError, ValueError, ssl.SSLError) as error:
            self._lost(f"{self._host}:{self._port}: {error}")
            return
        self._client = client

    def turn(self, *, readable: bool, writable: bool, most: int, most_bytes: int) -> int:
        """Reads and writes what it can without waiting; `most` messages, and some more bytes than `most_bytes`, at most.

        How many bytes it may have read still.
        """
        if (client := self._client) is None:
            return most_bytes
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        if readable:
            code, most_bytes = self._read(client, most, most_bytes)
        if writable and code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = client.loop_write()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = client.loop_misc()
        self._judge(code)
        return most_bytes

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """With QoS 1, at the next `flush`; nothing without a connection."""
        if self._client is not None:
            self._client.publish(topic, payload, qos=1, retain=retain)

    def publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """With QoS 0, not retained, at the next `flush`; nothing without a connection. Who is not there never gets it."""
        if self._client is not None:
            self._client.publish_all(messages)

    def acknowledge(self) -> None:
        """To the broker, all that has arrived."""
        if self._client is not None:
            self._client.acknowledge([mid for mid, qos in self._unacknowledged if qos == 1])
            for mid, qos in self._unacknowledged:
                if qos == 2:
                    self._client.ack(mid, qos)
        self.arrived, self._unacknowledged = [], []

    def flush(self) -> None:
        """Writes what waits, as far as that needs no waiting."""
        if self._client is not None:
            self._judge(self._client.flush())

    def close(self) -> None:
        """Says goodbye; the broker keeps the session. What was not acknowledged comes again."""
        if self._client is not None:
            self._client.disconnect()
            self._client = None
        self._ended()

    def interrupted(self, away_since_us: int) -> None:
        """Nobody took what came from `away_since_us` on: it is as if we had been away until now."""
        if self.since_us is not None:
            self.away_since_us, self.since_us, self.connected_us = away_since_us, self._now_us(), self._now_us()

    def _read(self, client: BufferedClient, most: int, room: int) -> tuple[MQTTErrorCode, int]:
        """Reads packets until none is complete, or there are enough. paho keeps the rest of a half-read packet."""
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        while code == MQTTErrorCode.MQTT_ERR_SUCCESS and len(self.arrived) < most and room > 0:
            for topic, payload, mid, qos, retained in client.take(most - len(self.arrived), room):
                self._heard(topic, payload, mid, qos, retained=retained)
                room -= len(payload)
            if not client.ahead or len(self.arrived) >= most or room <= 0:
                break
            before = len(self.arrived)
            code = client.loop_read()
            room -= sum(len(message.payload) for message in self.arrived[before:])
        return code, room

    def _heard(self, topic: bytes, payload: bytes, mid: int, qos: int, *, retained: bool) -> None:
        try:
            name = topic.decode()
        except UnicodeDecodeError:
            name = repr(topic)
        self.arrived.append(Message(name, payload, retained))
        if qos:
            self._unacknowledged.append((mid, qos))

    def _judge(self, code: MQTTErrorCode) -> None:
        """Whether the connection has ended, and how that is said."""
        client = self._client
        if client is None:
            return
        if code == MQTTErrorCode.MQTT_ERR_NO_CONN:
            self._lost("connection lost" if self.since_us is not None else None)  # hung up by ourselves, and said why
        elif code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lost(mqtt.error_string(code))
        elif client.socket() is None:
            self._lost("connection lost" if self.since_us is not None else None)

    def _lost(self, reason: str | None) -> None:
        was_up = self.since_us is not None
        self._client = None
        if reason is not None:
            self._down(reason)
        self._ended()
        self._failures = 0 if was_up else self._failures + 1
        pause_s = self._rng.uniform(0, min(self._config.backoff_cap_s, 2.0 ** min(self._failures, 10)))
        self._due = time.monotonic() + pause_s

    def _ended(self) -> None:
        if self.since_us is not None:
            self.away_since_us, self.since_us, self.connected_us, self._unbroken_us = self._now_us(), None, None, None

    def _down(self, reason: str) -> None:
        self.why = reason

    def _new_client(self) -> BufferedClient:
        config = self._config
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            self._client_id,
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
                client.subscribe([(topic, 1) for topic in self._filters])

        def subscribed(client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
            if any(code.is_failure for code in codes):
                self._down(f"the broker refused the subscription to {self._filters}")
                client.disconnect()
                return
            self.why, self.is_new = None, True
            self.connected_us = self._now_us()
            self.since_us = self.connected_us if self._unbroken_us is None else self._unbroken_us

        def message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            self._heard(message._topic, bytes(message.payload), message.mid, message.qos, retained=message.retain)

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = message
        return client

    @property
    def client(self) -> BufferedClient | None:
        """For `Waiting` alone."""
        return self._client


class Waiting:
    """Waits for several sessions at once, at the cost of those that something came for: of 64, that may be one."""

    def __init__(self, bell: int) -> None:
        """It waits no longer when the file number `bell` becomes readable, either."""
        self._poll = select.poll()  # not select(): that fails for a file number above 1023, which a busy listener can make of one
        self._bell = select.poll()
        for poll in (self._poll, self._bell):
            poll.register(bell, select.POLLIN)
        self._asked: dict[Session, tuple[int, int]] = {}  # the number of its socket, and what is asked of that
        self._by_number: dict[int, Session] = {}
        self._ahead: dict[Session, None] = {}  # has work that needs no waiting

    def look(self, session: Session) -> None:
        """To be called after anything was done with a session, and before waiting: what it waits for now."""
        client = session.client
        sock = None if client is None else client.socket()
        if client is None or sock is None:
            self.forget(session)
            if client is not None:
                self._ahead[session] = None  # its next turn finds out why
            return
        if client.ahead:
            self._ahead[session] = None
        else:
            self._ahead.pop(session, None)
        number = sock.fileno()
        asked = (number, select.POLLIN | (select.POLLOUT if client.behind else 0))
        if self._asked.get(session) != asked or self._by_number.get(number) is not session:
            self._unregister(session)
            self._poll.register(*asked)
            self._asked[session], self._by_number[number] = asked, session

    def forget(self, session: Session) -> None:
        """It is waited for no longer."""
        self._ahead.pop(session, None)
        self._unregister(session)

    def rest(self, timeout_s: float) -> None:
        """Waits for the bell alone, if at all."""
        if timeout_s > 0:
            self._bell.poll(timeout_s * 1000)

    def wait(self, timeout_s: float) -> list[tuple[Session, bool, bool]]:
        """Until there is something to read, or something waits and can be written: (session, readable, writable) of those."""
        said = self._poll.poll(0 if self._ahead else timeout_s * 1000)
        found = dict.fromkeys(self._ahead, (True, False))
        for number, flags in said:
            if (session := self._by_number.get(number)) is None:
                continue  # the bell
            ended = flags & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
            behind = self._asked[session][1] & select.POLLOUT
            is_readable = session in self._ahead or bool(ended or flags & select.POLLIN)
            found[session] = (is_readable, bool((ended and behind) or flags & select.POLLOUT))
        return [(session, *how) for session, how in found.items()]

    def _unregister(self, session: Session) -> None:
        number, _ = self._asked.pop(session, (-1, 0))
        if self._by_number.get(number) is session:  # else its socket was closed, and another has the number now
            del self._by_number[number]
            self._poll.unregister(number)


def credentials(client: mqtt.Client, config: BrokerConfig, *, tls: bool) -> None:
    """Gives the client what the configuration says it shows to the broker. ConfigError when a file can't be read."""
    if config.username is not None:
        client.username_pw_set(config.username, _secret(config.password_file))
    if tls:
        client.tls_set_context(_tls(config))


def certificate_ends_us(client: mqtt.Client) -> int | None:
    """Until when the certificate is good that the broker has shown; None without a connection over TLS."""
    sock = client.socket()
    shown = sock.getpeercert() if isinstance(sock, (ssl.SSLSocket, BufferedSocket)) else None
    until = shown.get("notAfter") if shown else None
    return int(ssl.cert_time_to_seconds(until)) * 1_000_000 if isinstance(until, str) else None


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
