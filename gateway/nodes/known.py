"""Which nodes there are, for whoever is about to ask something of one: those that spoke, and those that are to come."""

from sqlalchemy import Connection, exists, select

from edge.contract.names import is_name
from gateway.state.tables import certificates, claims, nodes


class UnknownNode(LookupError):
    """No node of this name ever spoke, has a certificate or is to be claimed."""


class NotClaimed(UnknownNode):
    """The name is known, and nobody bears it now: revoked, or not claimed yet. The text says what to do first."""


def must_be_known(connection: Connection, node: str, now_us: int, *, to_come: bool) -> None:
    """UnknownNode where nobody has heard of it, NotClaimed where nobody bears the name now: both would be asked in vain.

    `to_come`: a box that a code waits for will do, for it is told at its claim. A node of a town without certificates need
    only have spoken.
    """
    here = [exists(select(table.c.node).where(table.c.node == node)) for table in (nodes, certificates, claims)]
    spoke, *others = connection.execute(select(*here)).one()
    if not is_name(node) or not (spoke or any(others)):
        raise UnknownNode(f"there is no node {node[:40]!r}: none of this name ever spoke, has a certificate or a claim")
    ended = (
        select(certificates.c.revoked_us, certificates.c.revoked_why)
        .where(certificates.c.node == node)
        .order_by(certificates.c.revoked_us.is_(None).desc(), certificates.c.revoked_us.desc())
        .limit(1)
    )
    best = connection.execute(ended).one_or_none()
    if (spoke and best is None) or (best is not None and best.revoked_us is None):
        return
    open_ = (claims.c.node == node, claims.c.code.is_not(None), claims.c.used_us.is_(None), claims.c.expires_us > now_us)
    waits = bool(connection.scalar(select(exists(select(claims.c.node).where(*open_)))))
    if waits and to_come:
        return
    state = "is not claimed yet" if best is None else f"was revoked ({best.revoked_why})"
    first = "claim it with the code that waits" if waits else "make a code (satomori-gateway node add) and claim it"
    raise NotClaimed(f"{node} {state}, so nobody would hear it; {first} first")
