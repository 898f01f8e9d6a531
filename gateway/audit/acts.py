"""How what somebody asks of us is written down: who it was, to what, by which route, and what came of it. Never what they sent.

An act is entered when it is asked for, durable before it is begun, and what came of it in an entry of its own, before they hear
of it: the chain changes nothing that stands in it. Whatever is killed in between, there is no act without its entry; one whose
outcome is missing may have been done or not. Who enters an act in its own transaction has no need of any of this.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection

from gateway.audit.chain import record
from gateway.policy import PERSON_NODE, Actor, Thing

WITH = "with"
"""The member of `more` that lists what else the act is about, as `<kind>/<id>`; the trail is read and erased by these too."""
ROUTE = "route"
"""The member of `more` by which it was asked for: an entry that has it is followed by one of its outcome."""
OUTCOME = "outcome"
"""The action of an entry that says what came of another, which is its thing: `entry/<number>`. It names nobody."""
ENTRY = "entry"
Outcome = Literal["done", "refused", "failed"]
"""`failed`: by a fault of ours, and perhaps in part."""
_API = "/api/v1/"
_ONE = {"searches": "search", "deliveries": "delivery", "watched": "watched"}


def who_of(actor: Actor) -> str:
    """As an entry calls them: `account:<id>`, `contact:<id>` or, by the file of tokens, `token:<name>`."""
    if actor.account is not None:
        return f"account:{actor.account}"
    return f"contact:{actor.contact}" if actor.contact is not None else f"token:{actor.name}"


def noted(
    connection: Connection,
    actor: Actor,
    action: str,
    route: tuple[str, str],
    parameters: Mapping[str, Any],
    things: Sequence[Thing],
    now_us: int,
) -> int:
    """Records that `action` is asked for; the entry's number, for `came_of`.

    `route`: the method, and the path with its parameters' names in it (`/alerts/{id}`).

    `things`: what the policy was asked about; a person among them, by whom the entry is found and erased.
    """
    method, path = route[0], f"/{route[1].removeprefix(_API).lstrip('/')}"
    about = things_in(path, parameters)
    about += [f"watched/{one.device}" for one in things if one.node == PERSON_NODE and one.device is not None]
    about += [f"search/{one.case}" for one in things if one.case is not None]
    about = list(dict.fromkeys(about))
    more: dict[str, Any] = {ROUTE: f"{method} {path}"}
    if about[1:]:
        more[WITH] = about[1:]
    return record(connection, who_of(actor), action, about[0] if about else "", now_us, more=more)


def came_of(connection: Connection, number: int, outcome: Outcome, now_us: int, status: int | None = None) -> None:
    """Records what came of what the entry `number` says was asked for. `status`: of HTTP."""
    more = {OUTCOME: outcome} if status is None else {OUTCOME: outcome, "status": status}
    record(connection, "gateway", OUTCOME, f"{ENTRY}/{number}", now_us, more=more)


def by_status(status: int) -> Outcome:
    """What an answer of HTTP says came of it."""
    return "done" if status < 400 else "refused" if status < 500 else "failed"


def things_in(path: str, parameters: Mapping[str, Any]) -> list[str]:
    """What a path is about, the first first: `/watched/{id}/tags/{tag}` is about `watched/<id>` and `tag/<tag>`."""
    found: list[str] = []
    kind = ""
    for part in path.removeprefix(_API).strip("/").split("/"):
        if not part.startswith("{"):
            kind = _ONE.get(part, part.removesuffix("s"))
            continue
        value = str(parameters.get(part.strip("{}").partition(":")[0], ""))
        if kind:
            found.append(f"{kind}/{value}")
        elif found:
            found[-1] += f"/{value}"  # a device is called by its node and its name
        kind = ""
    return found
