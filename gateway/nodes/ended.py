"""Ends the connections of nodes whose last certificate has ended: revoked, or run out while they were connected.

NATS ends them by itself. Mosquitto, and any broker that looks at certificates only when somebody connects, keeps them until they
break. So we come to the broker under the node's client id for a moment: by MQTT's own rule (3.1.1, 3.1.4) that ends the older
connection, and the node can't come back, for the broker has read who is a node meanwhile. It may have been told only just now, or
is told by systemd a little later: hence AFTER_S.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from sqlalchemy import select

from edge.contract.broker import parse_url
from gateway.ingest import GatewayBrokerConfig
from gateway.session import credentials
from gateway.state import State
from gateway.state.tables import certificates

log = logging.getLogger(__name__)

EVERY_S = 2.0
AFTER_S = (0, 5, 15, 60, 300)
"""Seconds after a node's end at which it is put out, again where it was quicker than the broker's reading."""
_FOR_US = 2 * AFTER_S[-1] * 1_000_000
PAUSE_US = 30 * 1_000_000
"""After a failure."""
NO_IDS = (
    "broker.url: this listener gives everybody the client id of their certificate, so the connections of revoked nodes can't be "
    "ended. Give the gateway a listener without use_username_as_clientid (port 8884 of firmware_configs/gateway/mosquitto.conf)."
)
_CONNECT_S = 5.0


class End(NamedTuple):
    """A node that has no good certificate any more, and since when."""

    node: str
    at_us: int


class Ended:
    """`run` is a chore."""

    def __init__(self, state: State, broker: GatewayBrokerConfig) -> None:
        self._state, self._broker = state, broker
        self._done: dict[End, int] = {}  # how many of AFTER_S
        self._can: bool | None = None  # whether the broker lets us come under a node's id; None: not asked yet
        self._failed_us: int | None = None

    def run(self, now_us: int) -> None:
        """Puts out whoever is due. What fails is said once and tried again, but not so often that other chores wait."""
        if self._failed_us is not None and 0 <= now_us - self._failed_us < PAUSE_US:
            return
        try:
            if self._can is None:
                self._can = takes_client_ids(self._broker)
                if not self._can:
                    log.error(NO_IDS)
            if self._can:
                self._put_out_who_is_due(now_us)
        except OSError as error:
            if self._failed_us is None:
                log.error("connections of nodes that are none any more can't be ended: %s; trying again", error)
            self._failed_us = now_us
        else:
            if self._failed_us is not None:
                log.warning("connections of nodes that are none any more can be ended again")
            self._failed_us = None

    def _put_out_who_is_due(self, now_us: int) -> None:
        due = {end: self._done.get(end, 0) for end in ended(self._state, now_us)}
        self._done = {end: times for end, times in self._done.items() if end in due}
        for end, before in due.items():
            times = before
            while times < len(AFTER_S) and now_us - end.at_us >= AFTER_S[times] * 1_000_000:
                times += 1
            if times > before:
                put_out(self._broker, end.node)
                self._done[end] = times


def ended(state: State, now_us: int) -> list[End]:
    """The nodes whose last good certificate ended lately."""
    last: dict[str, int] = {}
    with state.read() as connection:
        for row in connection.execute(select(certificates.c.node, certificates.c.revoked_us, certificates.c.not_after_us)):
            end_us = row.not_after_us if row.revoked_us is None else min(row.revoked_us, row.not_after_us)
            last[row.node] = max(last.get(row.node, 0), end_us)
    return [End(node, at_us) for node, at_us in last.items() if now_us - _FOR_US < at_us <= now_us]


def put_out(broker: GatewayBrokerConfig, node: str) -> None:
    """Takes the node's session for a moment, and leaves none. OSError saying why it failed. Takes some seconds at most."""
    with _visit(broker, node):
        pass


def takes_client_ids(broker: GatewayBrokerConfig) -> bool:
    """Whether who connects is known by the client id they choose. OSError where the broker can't be asked.

    Where it goes by the certificate (Mosquitto's use_username_as_clientid), whatever we connect as is our own session: we would
    put ourselves out, and no node. Then this asking has done so too, once.
    """
    with _visit(broker, f"{broker.client_id[:25]}-one") as one, _visit(broker, f"{broker.client_id[:25]}-two"):
        return all(one.loop(0.1) == MQTTErrorCode.MQTT_ERR_SUCCESS for _ in range(5))


@contextmanager
def _visit(broker: GatewayBrokerConfig, client_id: str) -> Iterator[mqtt.Client]:
    """Connected under this id while the block runs; no session stays behind. OSError with the reason where it can't be."""
    answers: list[str] = []
    host, port, tls = parse_url(broker.url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=True, protocol=MQTTProtocolVersion.MQTTv311)
    client.connect_timeout = _CONNECT_S
    client.on_connect = lambda _c, _d, _f, code, _p: answers.append(f"the broker refused: {code}" if code.is_failure else "")
    try:
        credentials(client, broker, tls=tls)
        client.connect(host, port)
        until = time.monotonic() + _CONNECT_S
        while not answers and time.monotonic() < until and client.loop(0.1) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass
        if answers != [""]:
            raise OSError(answers[0] if answers else "the broker did not answer")
        yield client
        client.disconnect()
        client.loop(0.1)
    except ValueError as error:  # a ConfigError too: a certificate that is just being replaced
        raise OSError(str(error)) from error
    finally:
        if (left := client.socket()) is not None:
            left.close()
