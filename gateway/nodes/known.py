"""Which nodes there are, for whoever is about to ask something of one: those that spoke, and those that are to come."""

from sqlalchemy import Connection, exists, select

from edge.contract.names import is_name
from gateway.state.tables import certificates, claims, nodes
from gateway.words.refusal import Refusal


class UnknownNode(Refusal):
    """No node of this name ever spoke, has a certificate or is to be claimed."""


class NotClaimed(UnknownNode):
    """The name is known, and nobody bears it now: revoked, or not claimed yet."""


def must_be_known(connection: Connection, node: str, now_us: int, *, to_come: bool) -> None:
    """UnknownNode where nobody has heard of it, NotClaimed where nobody bears the name now: both would be asked in vain.

    `to_come`: a box that a code waits for will do, for it is told at its claim. A node of a town without certificates need
    only have spoken.
    """
    here = [exists(select(table.c.node).where(table.c.node == node)) for table in (nodes, certificates, claims)]
    spoke, *others = connection.execute(select(*here)).one()
    if not is_name(node) or not (spoke or any(others)):
        raise UnknownNode("why.no_node", node=repr(node[:40]))
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
    if best is None:
        raise NotClaimed("why.node_waits" if waits else "why.node_unclaimed", node=node)
    raise NotClaimed("why.node_revoked_waits" if waits else "why.node_revoked", node=node, why=best.revoked_why)
