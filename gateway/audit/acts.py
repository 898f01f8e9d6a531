"""How what somebody does through the API is written down: who it was, to what, by which route. Never what they sent.

An entry says that it was tried, and is durable before it is: what came of it stands where the act stands (an alert's history, a
search's, ...). So whatever is killed in between, there is no act without its entry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from gateway.audit.chain import record
from gateway.policy import PERSON_NODE, Actor, Thing

WITH = "with"
"""The member of `more` that lists what else the act is about, as `<kind>/<id>`; the trail is read and erased by these too."""
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
) -> None:
    """Records an attempt at `action`. `route`: the method, and the path with its parameters' names in it (`/alerts/{id}`).

    `things`: what the policy was asked about; a person among them, by whom the entry is found and erased.
    """
    method, path = route[0], f"/{route[1].removeprefix(_API).lstrip('/')}"
    about = things_in(path, parameters)
    about += [f"watched/{one.device}" for one in things if one.node == PERSON_NODE and one.device is not None]
    about += [f"search/{one.case}" for one in things if one.case is not None]
    about = list(dict.fromkeys(about))
    more: dict[str, Any] = {"route": f"{method} {path}"}
    if about[1:]:
        more[WITH] = about[1:]
    record(connection, who_of(actor), action, about[0] if about else "", now_us, more=more)


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
