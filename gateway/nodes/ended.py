"""Ends the connections of nodes whose last certificate has ended: revoked, or run out while they were connected.

NATS ends them by itself. Mosquitto, and any broker that looks at certificates only when somebody connects, keeps them until they
break. So we come to the broker under the node's client id for a moment: by MQTT's own rule (3.1.1, 3.1.4) that ends the older
connection, and the node can't come back, for the broker has read who is a node meanwhile. It may have been told only just now, or
is told by systemd a little later: hence AFTER_S.
"""

import logging
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from sqlalchemy import select

from edge.contract.broker import parse_url
from gateway.errors import ConfigError
from gateway.ingest import GatewayBrokerConfig, credentials
from gateway.state import State
from gateway.state.tables import certificates

log = logging.getLogger(__name__)

EVERY_S = 2.0
AFTER_S = (0, 5, 15, 60, 300)
"""Seconds after a node's end at which it is put out, again where it was quicker than the broker's reading."""
_FOR_US = 2 * AFTER_S[-1] * 1_000_000
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
        self._failing = False

    def run(self, now_us: int) -> None:
        """Puts out whoever is due. What fails is said once and tried again."""
        due = {end: self._done.get(end, 0) for end in ended(self._state, now_us)}
        self._done = {end: times for end, times in self._done.items() if end in due}
        for end, before in due.items():
            times = before
            while times < len(AFTER_S) and now_us - end.at_us >= AFTER_S[times] * 1_000_000:
                times += 1
            if times == before:
                continue
            if (fault := put_out(self._broker, end.node)) is not None:
                if not self._failing:
                    log.error(
                        "the connection of %s, which is a node no longer, can't be ended: %s; trying again", end.node, fault
                    )
                self._failing = True
                return
            if self._failing:
                log.warning("connections of nodes that are none any more can be ended again")
            self._failing = False
            self._done[end] = times


def ended(state: State, now_us: int) -> list[End]:
    """The nodes whose last good certificate ended lately."""
    last: dict[str, int] = {}
    with state.read() as connection:
        for row in connection.execute(select(certificates.c.node, certificates.c.revoked_us, certificates.c.not_after_us)):
            end_us = row.not_after_us if row.revoked_us is None else min(row.revoked_us, row.not_after_us)
            last[row.node] = max(last.get(row.node, 0), end_us)
    return [End(node, at_us) for node, at_us in last.items() if now_us - _FOR_US < at_us <= now_us]


def put_out(broker: GatewayBrokerConfig, node: str) -> str | None:
    """Takes the node's session for a moment, and leaves none. Why it failed, or None. Takes some seconds at most."""
    answers: list[str | None] = []
    host, port, tls = parse_url(broker.url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, node, clean_session=True, protocol=MQTTProtocolVersion.MQTTv311)
    client.connect_timeout = _CONNECT_S
    client.on_connect = lambda _c, _d, _f, code, _p: answers.append(f"the broker refused: {code}" if code.is_failure else None)
    try:
        credentials(client, broker, tls=tls)
        client.connect(host, port)
        for _ in range(int(_CONNECT_S * 10)):
            if answers or client.loop(0.1) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
        client.disconnect()
        client.loop(0.1)
    except (ConfigError, OSError, ValueError) as error:
        return str(error)
    finally:
        if (left := client.socket()) is not None:
            left.close()
    return answers[0] if answers else "the broker did not answer"
