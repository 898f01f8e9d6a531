"""What answers: the API's needs, put together of the core and of the way to people, and its listeners.

No process without the role `api` imports this: with FastAPI and what belongs to it, that alone is 17 MiB.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.api.answer import AnswerPage
from gateway.api.answer import taking as taking_links
from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.hooks_twilio import TwilioHooks
from gateway.api.hooks_twilio import taking as taking_keys
from gateway.api.push import PushDoor
from gateway.api.server import serve
from gateway.api.tokens import read_tokens
from gateway.config import GatewayConfig
from gateway.contacts import people, proof
from gateway.core import Core, now_us
from gateway.nodes.conduct import Conduct
from gateway.nodes.listener import create_node_app, listening
from gateway.notify.twilio import read_auth_token
from gateway.reach import Reach
from gateway.relations import Relations
from gateway.state import State


class Doors(NamedTuple):
    """Where people answer, without a login."""

    answer_page: AnswerPage | None
    """None without `[people]`."""
    push: PushDoor | None
    """None without `[channel.push]`."""
    twilio: TwilioHooks | None
    """None without `[channel.twilio]`."""


def open_doors(config: GatewayConfig, state: State, reach: Reach, now_us: Callable[[], int]) -> Doors:
    """Those that the configuration has. ConfigError when a secret can't be read."""
    desk, links, paging = reach.desk, reach.links, reach.paging
    if config.people is None or desk is None or links is None:
        return Doors(None, None, None)
    push = twilio = None
    if config.channel.push and reach.channels.vapid:
        push = PushDoor(
            state, reach.channels.vapid.public_key, links.read_contact, people.add_address, desk.proof.test, now_us,
            config.channel.push.allow_loopback,
        )  # fmt: skip
    if config.channel.twilio:
        twilio = TwilioHooks(
            state, read_auth_token(config.channel.twilio), config.people.public_url,
            config.people.town, now_us, taking_keys(paging.answers.answer_to), proof.lost, reach.ring_deliveries,
        )  # fmt: skip
    zone, take = ZoneInfo(config.time_zone), taking_links(paging.answers.answer_to)
    page = AnswerPage(state, links, zone, now_us, desk.book.name_of, take, reach.search.withheld, desk.push_url, desk.phone)
    return Doors(page, push, twilio)


def deps_of(
    core: Core,
    reach: Reach,
    health: Callable[[], Mapping[str, bool]],
    ring_deliveries: Callable[[], None],
    ring_nodes: Callable[[], None],
) -> Deps:
    """What the API needs. ConfigError when a secret can't be read."""
    config, care = core.config, core.care
    doors = open_doors(config, core.state, reach, now_us)
    return Deps(
        state=core.state,
        store=core.store,
        feed=core.feed,
        media=core.media,
        tokens=read_tokens(config.api.tokens_file),
        telemetry=core.telemetry,
        now_us=now_us,
        health=health,
        deployments=core.deployments,
        moved=reach.paging.moved,
        paging=reach.paging,
        mode_to=config.people.hear_mode if config.people else (),
        answer_page=doors.answer_page,
        desk=reach.desk,
        accounts=reach.accounts,
        inbox=reach.inbox,
        line_secret=reach.line_secret,
        push=doors.push,
        twilio=doors.twilio,
        rules=config.rule,
        areas=config.area,
        open_data=config.open_data,
        tiles=core.tiles,
        links=config.map.link,
        alerts_kept_us=config.keep.alerts * 1_000_000,
        zone=core.zone,
        enrolled=core.enrolled,
        world=Relations(core.state, core.deployments, core.enrolled, now_us),
        search=reach.search,
        consents=reach.consents,
        labels=reach.labels,
        look_every_us=int(config.mimamori.look_every * 1e6),
        ring_deliveries=ring_deliveries,
        stale_after_s=config.api.stale_after_s,
        signer=care.signer if care else None,
        claims=care.claims if care else None,
        taken_names=config.taken_names,
        ring=ring_nodes,
    )


@asynccontextmanager
async def serving(core: Core, deps: Deps, conduct: Conduct) -> AsyncIterator[tuple[int, int | None]]:
    """The API, and the node listener where there is one, while the block runs: their ports."""
    config, care = core.config, core.care
    async with (
        serve(
            create_app(deps),
            config.api.host,
            config.api.port,
            proxies=config.api.trusted_proxies,
            most_of_one=config.api.connections_per_address,
        ) as port,
        listening(create_node_app(deps, care, conduct.note), config.nodes, care, now_us)
        if config.nodes and care
        else nullcontext() as nodes,
    ):
        yield port, nodes
