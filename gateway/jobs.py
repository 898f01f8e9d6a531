"""Installers' jobs: whose it is, at which nodes, from when until when. What it lets them do: gateway.policy.

A job is never changed: one that was wrong is ended and made anew, so that who might do what, and when, can be read off the table.
Both are entered in the audit trail in the same transaction, with the job, the account and the nodes.
"""

import secrets
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, insert, select, update

from edge.contract.names import is_name
from gateway import audit
from gateway.audit.acts import WITH
from gateway.state.tables import accounts, job_nodes, jobs
from gateway.words.refusal import Refusal

INSTALLER = "installer"
LONGEST_DAYS = 92
LONGEST_US = LONGEST_DAYS * 86_400_000_000
"""A job that nobody remembers is a door that stands open."""
MOST_NODES = 200
LONGEST_LABEL = 60


class Wrong(Refusal):
    """This job can't be made."""


class Job(NamedTuple):
    """What is asked for. A node may be one that is still to come."""

    account: str
    label: str
    nodes: Collection[str]
    until_us: int
    from_us: int | None = None
    """None: now."""


def add(connection: Connection, job: Job, by: str, now_us: int, taken: Collection[str] = ()) -> str:
    """Makes one; its id. Wrong for what can't be. `by`: as the trail calls them. `taken`: names that no node has."""
    account, label, nodes, until_us, from_us = job
    from_us = now_us if from_us is None else from_us
    row = connection.execute(select(accounts).where(accounts.c.id == account)).first()
    if row is None or row.disabled_us is not None:
        raise Wrong("why.job_account")
    if INSTALLER not in row.roles.split(","):
        raise Wrong("why.job_role", role=INSTALLER)
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise Wrong("why.job_label", n=LONGEST_LABEL)
    wanted = sorted(set(nodes))
    if not 1 <= len(wanted) <= MOST_NODES:
        raise Wrong("why.job_nodes", n=MOST_NODES)
    for node in wanted:
        if not is_name(node) or node in taken:
            raise Wrong("why.job_node", node=repr(node[:40]))
    if until_us <= max(from_us, now_us):
        raise Wrong("why.until")
    if until_us - from_us > LONGEST_US:
        raise Wrong("why.at_most_days", n=LONGEST_DAYS)
    id_ = secrets.token_hex(8)
    made = {"id": id_, "account": account, "label": label.strip(), "from_us": from_us, "until_us": until_us, "created_us": now_us,
            "created_by": by}  # fmt: skip
    connection.execute(insert(jobs).values(made))
    connection.execute(insert(job_nodes), [{"job": id_, "node": node} for node in wanted])
    _audited(connection, by, "job.add", id_, now_us)
    return id_


def end(connection: Connection, id_: str, by: str, now_us: int) -> bool:
    """Ends one now; one that has not begun never does. False where there is none that goes on or is to come."""
    open_ = (jobs.c.id == id_, jobs.c.ended_us.is_(None), jobs.c.until_us > now_us)
    if connection.execute(update(jobs).where(*open_).values(ended_us=now_us)).rowcount != 1:
        return False
    _audited(connection, by, "job.end", id_, now_us)
    return True


def _audited(connection: Connection, by: str, action: str, id_: str, now_us: int) -> None:
    job = one(connection, id_)
    about = [f"account/{job['account']}", *(f"node/{node}" for node in job["nodes"])]
    audit.record(connection, by, action, f"job/{id_}", now_us, more={WITH: about})


def listed(
    connection: Connection, now_us: int, *, account: str | None = None, over: bool = False, limit: int = 200
) -> list[Mapping[str, Any]]:
    """Rows with `nodes` and the account's `name`, the last to begin first: those that go on or are to come, or with `over` all.

    `account`: only its own, and of these only those that run now.
    """
    query = _WITH_NAME
    if not over or account is not None:
        query = query.where(jobs.c.ended_us.is_(None), jobs.c.until_us > now_us)
    if account is not None:
        query = query.where(jobs.c.account == account, jobs.c.from_us <= now_us)
    return _with_nodes(connection, query.order_by(jobs.c.from_us.desc(), jobs.c.id).limit(limit))


def one(connection: Connection, id_: str) -> Mapping[str, Any]:
    """The row with this id, which there must be."""
    return _with_nodes(connection, _WITH_NAME.where(jobs.c.id == id_))[0]


_WITH_NAME = select(jobs, accounts.c.name).join(accounts, accounts.c.id == jobs.c.account)


def _with_nodes(connection: Connection, query: Select[Any]) -> list[Mapping[str, Any]]:
    rows = connection.execute(query).mappings().all()
    theirs: dict[str, list[str]] = {row["id"]: [] for row in rows}
    nodes = select(job_nodes).where(job_nodes.c.job.in_(list(theirs))).order_by(job_nodes.c.node)
    for each in connection.execute(nodes):
        theirs[each.job].append(each.node)
    return [{**row, "nodes": theirs[row["id"]]} for row in rows]
