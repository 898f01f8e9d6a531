"""What the routes work with, and the rule that stands before each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Path, Query, Request
from sqlalchemy import Connection

from edge.contract.events import MAX_SEQ
from edge.contract.names import Name
from gateway.alerting.lifecycle import Move
from gateway.api.answer import AnswerPage
from gateway.api.authorize import Actor, authorize
from gateway.api.hooks_twilio import TwilioHooks
from gateway.api.push import PushDoor
from gateway.api.tokens import Tokens
from gateway.contacts.desk import Desk
from gateway.deployments import Deployments
from gateway.feed import Feed
from gateway.flow.config import AreaConfig
from gateway.inbox import Inbox
from gateway.media import MediaShelf
from gateway.mimamori.enrolled import Enrolled
from gateway.mimamori.search import Search
from gateway.nodes.claims import Claims
from gateway.nodes.signing import Signer
from gateway.paging import Paging
from gateway.rules import RuleConfig
from gateway.state import State
from gateway.store import SeriesReader
from gateway.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Deps:
    """Handed to `create_app` once, by the wiring."""

    state: State
    store: SeriesReader | None
    """None when the series store only writes."""
    feed: Feed
    media: MediaShelf
    tokens: Tokens
    telemetry: Telemetry
    now_us: Callable[[], int]
    health: Callable[[], Mapping[str, bool]]
    """Each part of the gateway (broker, store, ...) and whether it works. Shown to everybody: names, no secrets."""
    signer: Signer | None = None
    """What nodes are told is signed with this; None where `[nodes]` is not configured."""
    claims: Claims | None = None
    """How nodes come to their identities; None likewise."""
    taken_names: frozenset[str] = frozenset()
    """What no node may be called."""
    ring: Callable[[], None] = lambda: None
    """Says that something waits to go down to nodes, so that it need not wait for the next second."""
    moved: Callable[[Connection, Move, int], None] = lambda _connection, _move, _now_us: None
    """What follows from a move of an alert, in its transaction: gateway.paging's."""
    paging: Paging | None = None
    """Who was told and asked of what; None in a gateway that pages nobody."""
    answer_page: AnswerPage | None = None
    """Where messages are answered by their link; None where `[people]` is not configured."""
    desk: Desk | None = None
    """Contacts, invitations and tests; None where `[people]` is not configured."""
    inbox: Inbox | None = None
    """Where what channels tell us is kept; None without channels that do."""
    line_secret: str | None = None
    """The channel secret of the LINE account; None without one."""
    push: PushDoor | None = None
    """Where browsers subscribe to push messages; None without `[channel.push]`."""
    twilio: TwilioHooks | None = None
    """Where Twilio tells and asks; None without `[channel.twilio]`."""
    deployments: Deployments = field(default_factory=lambda: Deployments(()))
    areas: Mapping[str, AreaConfig] = field(default_factory=dict)
    """The areas of the configuration, by name."""
    rules: Mapping[str, RuleConfig] = field(default_factory=dict)
    """The rules of the configuration, by name."""
    enrolled: Enrolled = field(default_factory=Enrolled)
    """Whose tag is whose; read anew after each change."""
    search: Search | None = None
    """The search for missing people; None in a gateway that pages nobody."""
    ring_deliveries: Callable[[], None] = lambda: None
    """Says that messages were committed, so that they need not wait for the next look."""
    stale_after_s: float = 600
    """A device not heard of for this long is shown as unknown."""
    heartbeat_s: float = 4
    """A stream with nothing to say says so this often: a page must notice a dead connection within 10 s."""


def permitted(action: str) -> Callable[[Request], Actor]:
    """The dependency that every route but the open ones has: the actor, once `authorize` has agreed."""

    def check(request: Request) -> Actor:
        actor: Actor = request.state.actor
        authorize(actor, action, "/".join(request.path_params.values()) or "*")
        return actor

    return check


NameQuery = Annotated[Name, Query()]
Sha256Path = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
BeforeQuery = Annotated[int | None, Query(ge=1, le=MAX_SEQ, description="Only rows with a smaller id: the next page.")]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="Rows at most.")]
