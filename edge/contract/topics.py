"""MQTT topics: `topic_for` and `parse` are inverses, and no other code builds or splits a topic.

    satomori/v1/{partition}/{node}/{channel}        channel = up/live, down/ack, ...
    satomori/v1/{partition}/{node}/{channel}/{id}   for commands and their results

The partition is the CRC-32 (IEEE 802.3, as in zlib) of the node's name modulo 64, two digits, so that workers can
share a town by topic filter alone. Vectors, checked in tests/contract/test_topics.py: `kitayama-03` 29, `a` 3, `gw` 0.
"""

import zlib
from enum import StrEnum
from typing import NamedTuple

from edge.contract.names import is_name

ROOT = "satomori/v1"
PARTITIONS = 64


class Channel(StrEnum):
    """What a topic carries; the value is its path under the node."""

    LIVE = "up/live"
    BACKLOG = "up/backlog"
    BIRTH = "up/birth"
    STATE = "up/state"
    ACK = "down/ack"
    DESIRED = "down/desired"
    REPORTED = "up/reported"
    COMMAND = "down/command"
    RESULT = "up/result"
    EXPECTED = "down/expected"  # what rotating tags will call themselves in the coming hours


LIVE, ACK = Channel.LIVE.value, Channel.ACK.value
WITH_ID = frozenset({Channel.COMMAND, Channel.RESULT})
_CHANNELS = {channel.value: channel for channel in Channel}
_LEVELS = tuple(f"{partition:02d}" for partition in range(PARTITIONS))
_OF_LIVE = slice(len(f"{ROOT}/00/"), -len(f"/{LIVE}"))


class Topic(NamedTuple):
    """A parsed topic. `id` is set for commands and results and for nothing else."""

    node: str
    channel: Channel
    id: str | None = None


def partition_of(node: str) -> int:
    """0..63, the same for a name on every machine."""
    return zlib.crc32(node.encode()) % PARTITIONS


def topic_for(topic: Topic) -> str:
    """The topic's text. ValueError when the name is not a name, or an id is missing or too many."""
    if not is_name(topic.node):
        raise ValueError(f"{topic.node!r} is no node name: 1 to 32 of a-z, 0-9 and '-'")
    _check_id(topic)
    tail = f"/{topic.id}" if topic.id is not None else ""
    return unchecked(topic.node, f"{topic.channel}{tail}")


def unchecked(node: str, path: str) -> str:
    """The same in a fifth of the time, of a node that is known to be one. `path`: a channel's value, one without ids."""
    return f"{ROOT}/{_LEVELS[partition_of(node)]}/{node}/{path}"


def named_in(text: str) -> str:
    """The node of a topic, if that is `unchecked(node, LIVE)`; of other texts, whatever stands there."""
    return text[_OF_LIVE]


def _check_id(topic: Topic) -> None:
    if (topic.id is not None) != (topic.channel in WITH_ID):
        raise ValueError(f"{topic.channel} {'needs' if topic.channel in WITH_ID else 'takes no'} id")
    if topic.id is not None and not is_name(topic.id):
        raise ValueError(f"{topic.id!r} is no command id: 1 to 32 of a-z, 0-9 and '-'")


def parse(text: str) -> Topic:
    """The inverse of `topic_for`. ValueError, with a reason a person can read, for every other text."""
    parts = text.split("/")
    if parts[:2] != ["satomori", "v1"]:
        raise ValueError(f"topic does not start with {ROOT}/")
    if len(parts) not in (6, 7):
        raise ValueError(f"topic has {len(parts)} levels, not 6 or 7")
    partition, node = parts[2], parts[3]
    if not is_name(node):
        raise ValueError(f"topic names node {node[:40]!r}: not 1 to 32 of a-z, 0-9 and '-'")
    if partition != _LEVELS[partition_of(node)]:
        raise ValueError(f"topic has partition {partition[:8]!r}, node {node} belongs on {partition_of(node):02d}")
    channel = _CHANNELS.get(f"{parts[4]}/{parts[5]}")
    if channel is None:
        raise ValueError(f"topic has no channel {'/'.join(parts[4:6])[:40]!r}")
    topic = Topic(node, channel, parts[6] if len(parts) == 7 else None)
    _check_id(topic)
    return topic


def down_filter(node: str, channel: Channel) -> str:
    """The subscription by which a node hears one of its channels, whatever the id."""
    return topic_for(Topic(node, channel, "x"))[:-1] + "+" if channel in WITH_ID else topic_for(Topic(node, channel))


def up_filters(partition: int | None = None) -> list[str]:
    """The subscriptions that carry everything nodes say, of one partition or of all."""
    level = "+" if partition is None else f"{partition:02d}"
    return [f"{ROOT}/{level}/+/up/#"]
