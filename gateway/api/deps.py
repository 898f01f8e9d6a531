"""What the routes work with, and the rule that stands before each of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Path, Query, Request
from sqlalchemy import Connection

from edge.contract.events import MAX_SEQ
from edge.contract.names import Name
from gateway.accounts.desk import Accounts
from gateway.alerting.lifecycle import Move
from gateway.api.answer import AnswerPage
from gateway.api.hooks_twilio import TwilioHooks
from gateway.api.problems import Problem
from gateway.api.push import PushDoor
from gateway.api.tokens import Tokens
from gateway.audit import noted
from gateway.contacts.desk import Desk
from gateway.deployments import Deployment, Deployments
from gateway.feed import Feed
from gateway.flow.config import AreaConfig
from gateway.inbox import Inbox
from gateway.media import MediaShelf
from gateway.mimamori.consent import Consents
from gateway.mimamori.enrolled import Enrolled
from gateway.mimamori.labels import Labels
from gateway.mimamori.looks import EVERY_US
from gateway.mimamori.search import Search
from gateway.nodes.claims import Claims
from gateway.nodes.signing import Signer
from gateway.open_data import OpenDataConfig
from gateway.paging import Paging
from gateway.policy import Actor, Strangers, Thing, World, extent, has, refusal
from gateway.rules import RuleConfig
from gateway.rules.crowd import AREA
from gateway.state import State
from gateway.store import SeriesReader
from gateway.telemetry import Telemetry
from gateway.tiles import LinkConfig, Tiles


@dataclass(frozen=True, slots=True)
class Deps:
    """Handed to `create_app` once, by the wiring."""

    state: State
    store: SeriesReader
    feed: Feed
    media: MediaShelf
    tokens: Tokens
    telemetry: Telemetry
    now_us: Callable[[], int]
    health: Callable[[], Mapping[str, bool]]
    """Each part of the gateway (broker, store, ...) and whether it works. Shown to everybody: names, no secrets."""
    world: World = field(default_factory=Strangers)
    """Who is tied to what: gateway.relations."""
    accounts: Accounts | None = None
    """Who comes in by passkeys and links; None where `[people]` is not configured."""
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
    mode_to: Sequence[str] = ()
    """Groups and contacts that are told when the town's mode changes."""
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
    open_data: OpenDataConfig | None = None
    """What everybody may have; None: nothing."""
    tiles: Tiles | None = None
    """Where the map's tiles come from; None: there are none."""
    links: Sequence[LinkConfig] = ()
    """Pages of the town's own, for the map's foot."""
    alerts_kept_us: int = 365 * 86_400_000_000
    """Alerts that are over are kept for so long: a report of an earlier month would lack some."""
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("Asia/Tokyo"))
    """The town's."""
    rules: Mapping[str, RuleConfig] = field(default_factory=dict)
    """The rules of the configuration, by name."""
    enrolled: Enrolled = field(default_factory=Enrolled)
    """Whose tag is whose; read anew after each change."""
    consents: Consents | None = None
    """On whose word people are watched over; None: nobody is told of it."""
    labels: Labels | None = None
    """What finders report; None: nobody is told of it."""
    search: Search | None = None
    """The search for missing people; None in a gateway that pages nobody."""
    ring_deliveries: Callable[[], None] = lambda: None
    """Says that messages were committed, so that they need not wait for the next look."""
    stale_after_s: float = 600
    """A device not heard of for this long is shown as unknown."""
    look_every_us: int = EVERY_US
    """Looks of one at the same person in the same way are one look for so long."""
    heartbeat_s: float = 4
    """A stream with nothing to say says so this often: a page must notice a dead connection within 10 s."""

    def stands(self, node: str, device: str) -> Deployment:
        """Where what an alert is of stands, as its people call it: a device, or an area of several."""
        if node == AREA and device in self.areas:
            return Deployment.model_construct(node=node, device=device, kind=AREA, place=self.areas[device].label, label="")
        return self.deployments.of(node, device)


Of = Callable[["Deps", Mapping[str, str]], Sequence[Thing]]
"""What a route is about, by its parameters as they came in; empty where there is nothing of the kind. See gateway.api.things."""
Own = Callable[["Deps", Mapping[str, str], Actor], bool]
"""Whether it is the actor's own, by the route's parameters as they came in. See gateway.api.things."""


def permitted(action: str, of: Of | None = None, *, own: Own | None = None, enters: bool = False) -> Callable[[Request], Actor]:
    """The dependency that every route but the open ones has: the actor, once the policy has agreed.

    `of` says what the route is about, and of several things one that is theirs will do; without it, only who may do it to all
    there is gets in. `own`: what is somebody's own stays so when their relation has ended, while they have the role.
    `enters`: the route itself enters in the audit trail what it does, in its transaction.

    The check's `action` and `of` are its attributes: gateway.api.described writes them into the document.
    """

    def check(request: Request) -> Actor:
        actor: Actor = request.state.actor
        deps: Deps = request.app.state.deps
        theirs = extent(actor, action, deps.world)
        changes = request.method not in SAFE
        about: Sequence[Thing] = ()
        params = {**request.query_params, **request.path_params}
        if of is not None and (changes or not theirs.everything):
            about = of(deps, params)
        # Who may do it to all hears from the route what there is not; of anybody else it is refused.
        if not (
            theirs.everything
            or any(map(theirs.covers, about))
            or (own is not None and has(actor, action) and own(deps, params, actor))
        ):
            raise refusal(actor, action)
        if changes:
            _limit(deps, actor)
        if changes and not enters:
            _note(deps, request, actor, action, about)
        return actor

    check.action, check.of = action, of  # type: ignore[attr-defined]
    return check


def sifted(action: str) -> Callable[[Request], Actor]:
    """As `permitted`, for a route that lists, or whose body names the thing: who may do it to something gets in.

    The route itself leaves out, or refuses, what their `extent` does not cover (gateway.api.sift).
    """

    def check(request: Request) -> Actor:
        actor: Actor = request.state.actor
        if not has(actor, action):
            raise refusal(actor, action)
        if request.method not in SAFE:
            _limit(request.app.state.deps, actor)
            _note(request.app.state.deps, request, actor, action, ())
        return actor

    check.action, check.of = action, SIFTED  # type: ignore[attr-defined]
    return check


def _limit(deps: Deps, actor: Actor) -> None:
    """429 for an account that changes more than anybody can: what it tries is kept for years."""
    if deps.accounts is None or actor.account is None:
        return
    if wait_s := deps.accounts.limits.wait_s("change", actor.account):
        raise Problem(429, "why.changes", headers={"Retry-After": str(wait_s)})


def _note(deps: Deps, request: Request, actor: Actor, action: str, about: Sequence[Thing]) -> None:
    """What people and programs are about to change is in the trail before it is begun. Nodes hand in pictures all day."""
    if actor.roles == MACHINES:
        return
    with deps.state.write() as connection:
        route = (request.method, request.scope["route"].path)
        request.state.noted = noted(connection, actor, action, route, request.path_params, about, deps.now_us())


SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
"""Methods of routes that change nothing."""
MACHINES = frozenset(("node",))
SIFTED = "sifted"
"""The `of` of a check whose route sifts."""

NameQuery = Annotated[Name, Query()]
Sha256Path = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
BeforeQuery = Annotated[int | None, Query(ge=1, le=MAX_SEQ, description="Only rows with a smaller id: the next page.")]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="Rows at most.")]
FromQuery = Annotated[int, Query(ge=0, lt=2**53, description="From when, UTC µs.")]
UntilQuery = Annotated[int | None, Query(ge=0, lt=2**53, description="Until when, UTC µs, not included; now when not said.")]
