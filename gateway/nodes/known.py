"""Which nodes there are, for whoever is about to ask something of one: those that spoke, and those that are to come."""

from sqlalchemy import Connection, exists, select

from edge.contract.names import is_name
from gateway.state.tables import certificates, claims, nodes


class UnknownNode(LookupError):
    """No node of this name ever spoke, has a certificate or is to be claimed."""


def must_be_known(connection: Connection, node: str) -> None:
    """UnknownNode where nobody has heard of it: a misspelt name must not be asked anything in vain."""
    here = [exists(select(table.c.node).where(table.c.node == node)) for table in (nodes, certificates, claims)]
    if not is_name(node) or not connection.scalar(select(here[0] | here[1] | here[2])):
        raise UnknownNode(f"there is no node {node[:40]!r}: none of this name ever spoke, has a certificate or a claim")
