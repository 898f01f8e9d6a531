"""Orders to a node: identify, ping, test alarm, take a picture, restart a device, upload diagnostics. Made, answered, run out.

An order is done at most once (the node's promise, by its id) and never after it has run out, so it may be published as often
as it takes. What the node says first is what became of it.
"""

import secrets
from collections.abc import Iterable
from typing import get_args

from sqlalchemy import Connection, func, insert, select, update

from edge.contract.names import is_name
from edge.contract.remote import Command, CommandName, Result
from gateway.nodes.known import must_be_known
from gateway.nodes.signing import Signer
from gateway.state import State
from gateway.state.tables import commands
from gateway.words.refusal import Refusal

NAMES: tuple[str, ...] = get_args(CommandName)
FOR_A_DEVICE = frozenset({"test_alarm", "take_picture", "restart_device"})
TTL_S = 300
SHORTEST_S, LONGEST_S = 10, 24 * 3600
MAX_WAITING = 20  # of one node: who presses a button again and again must not fill its way back

WAITING, EXPIRED = "waiting", "expired"
NO_ANSWER = "no answer in time: the node was not reached, or its software is too old to know this command"


class NotOrdered(Refusal):
    """This can't be ordered."""


class TooManyWaiting(NotOrdered):
    """The node has not answered a good many orders yet."""


def order(
    state: State,
    signer: Signer,
    node: str,
    name: str,
    device: str | None,
    now_us: int,
    who: str,
    ttl_s: int = TTL_S,
) -> str:
    """Stores a signed order, which runs out after `ttl_s`; returns its id. It is published by whoever runs `Outgoing`.

    NotOrdered, TooManyWaiting, UnknownNode or NotClaimed where it can't be.
    """
    if name not in NAMES:
        raise NotOrdered("why.no_command", name=repr(name[:40]), names=", ".join(NAMES))
    if name in FOR_A_DEVICE and device is None:
        raise NotOrdered("why.command_device", name=name)
    if name not in FOR_A_DEVICE and device is not None:
        raise NotOrdered("why.command_whole", name=name)
    if device is not None and not is_name(device):
        raise NotOrdered("why.bad_name", where="device", name=repr(device[:40]))
    if not SHORTEST_S <= ttl_s <= LONGEST_S:
        raise NotOrdered("why.ttl", ttl=ttl_s, least=SHORTEST_S, most=LONGEST_S)
    id_ = secrets.token_hex(8)
    expires_us = now_us + ttl_s * 1_000_000
    with state.write() as connection:
        must_be_known(connection, node, now_us, to_come=False)
        waiting = connection.scalar(
            select(func.count()).where(commands.c.state == WAITING, commands.c.node == node, commands.c.expires_us > now_us)
        )
        if waiting and waiting >= MAX_WAITING:
            raise TooManyWaiting("why.commands_wait", node=node, n=waiting)
        statement = signer.sign(
            Command.model_validate(
                {"node": node, "id": id_, "name": name, "device": device, "issued": now_us, "expires": expires_us}
            )
        )
        connection.execute(
            insert(commands).values(
                id=id_, node=node, name=name, device=device, payload=statement.payload.decode(), issued_us=now_us,
                issued_by=who, expires_us=expires_us, state=WAITING,
            )
        )  # fmt: skip
    return id_


def check_result(connection: Connection, node: str, id_: str) -> None:
    """ValueError where this node was never given that order."""
    if connection.scalar(select(commands.c.node).where(commands.c.id == id_)) != node:
        raise ValueError(f"answers command {id_}, which this gateway never gave to {node}")


def commit_results(connection: Connection, results: Iterable[tuple[str, Result]], now_us: int) -> None:
    """Notes results that were checked: (id, result). The first one counts, also where we had given the order up."""
    for id_, result in results:
        connection.execute(
            update(commands)
            .where(commands.c.id == id_, commands.c.state.in_((WAITING, EXPIRED)))
            .values(
                state=result.state, reason=result.reason, media=result.media, rssi_dbm=result.rssi_dbm, answered_us=now_us
            )
        )  # fmt: skip


def round_trip_ms(issued_us: int, answered_us: int | None) -> int | None:
    """From when an order was given to its answer, by this gateway's clock; None where there is none, or that was set back."""
    return None if answered_us is None or answered_us < issued_us else (answered_us - issued_us) // 1000


def end(connection: Connection, node: str, why: str) -> None:
    """Gives up what waits for a node: it was meant for the box that stood there, and not for the next one of that name."""
    connection.execute(
        update(commands).where(commands.c.state == WAITING, commands.c.node == node).values(state=EXPIRED, reason=why)
    )


def expire(connection: Connection, now_us: int) -> None:
    """Notes what has run out: an order that was not answered may have been done, or not."""
    connection.execute(
        update(commands)
        .where(commands.c.state == WAITING, commands.c.expires_us <= now_us)
        .values(state=EXPIRED, reason=NO_ANSWER)
    )
