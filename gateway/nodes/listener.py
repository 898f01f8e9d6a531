"""What nodes reach over HTTPS: their claim, their renewal, the time, and their pictures.

An application of its own with a listener of its own, so that nothing of what people see can be asked for here.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, FastAPI, Path, Response
from sqlalchemy import exists, select
from sqlalchemy.exc import OperationalError
from typing_extensions import TypedDict

from edge.contract.remote import ALPHABET, ID_LENGTH, ClaimAnswer, ClaimRequest, RenewRequest
from gateway.api import media
from gateway.api.bodies import StrictBodies
from gateway.api.deps import Deps
from gateway.api.described import describe
from gateway.api.gate import Gate, is_json
from gateway.api.measured import Measured
from gateway.api.problems import Problem, add_problem_handlers, describe_problems
from gateway.api.server import serve
from gateway.api.tokens import Tokens
from gateway.config import NodesConfig
from gateway.errors import ConfigError
from gateway.feed import Feed
from gateway.nodes.authority import LISTENER
from gateway.nodes.care import Care
from gateway.nodes.claims import Refused
from gateway.nodes.picture_quota import Note, PictureQuota
from gateway.policy import Actor
from gateway.state import State
from gateway.state.tables import certificates, node_tokens

log = logging.getLogger(__name__)

CLAIMS, RENEWALS, TIME = "/api/v1/claims/", "/api/v1/renewals", "/api/v1/time"
LOOK_EVERY_S = 60.0
"""So often the brokers' files are compared with the state database, and our own certificates with the calendar."""

IdPath = Annotated[str, Path(pattern=f"^[{ALPHABET}]{{{ID_LENGTH}}}$", description="The code's first four characters.")]


class TimeJson(TypedDict):
    """What time it is here."""

    now_us: int


def create_node_app(deps: Deps, care: Care, note: Note = lambda *_: None) -> FastAPI:
    """The nodes' side of the web, ready to be served. Of `deps` it uses state, media, telemetry and the clock.

    `note`: Conduct.note of gateway.nodes.conduct.
    """
    app = FastAPI(title="satomori node listener", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    add_problem_handlers(app)
    tokens = Tokens({}, lambda sha256: _node_of(deps.state, sha256, deps.now_us()))
    app.add_middleware(StrictBodies, is_json=is_json)
    app.add_middleware(PictureQuota, now_us=lambda: deps.now_us(), note=note)  # noqa: PLW0108 - read at each request
    app.add_middleware(Gate, tokens=tokens, is_open=_is_open)
    app.add_middleware(Measured, telemetry=deps.telemetry)
    app.include_router(_routes(deps, care), prefix="/api/v1")
    app.include_router(media.routes(deps), prefix="/api/v1")
    describe_problems(app)
    describe(app)
    app.state.deps = deps
    app.state.feed = Feed()  # nobody listens; the server ends it when it stops
    return app


def _routes(deps: Deps, care: Care) -> APIRouter:
    router = APIRouter()

    @router.post("/claims/{id}", openapi_extra={"x-open": "the code on the box proves itself"})
    def claim(id: IdPath, request: ClaimRequest) -> ClaimAnswer:  # noqa: A002  the path's own word
        """Gives a node its identity for the code on its box."""
        try:
            return care.claims.answer(id, request)
        except Refused as refused:
            raise _problem(refused) from None

    @router.post("/renewals", openapi_extra={"x-open": "signed with the key of the certificate that is due"})
    def renew(request: RenewRequest) -> Response:
        """Gives a certificate its successor. The answer is signed."""
        try:
            return Response(care.renewals.answer(request), media_type="application/json")
        except Refused as refused:
            raise _problem(refused) from None

    @router.get("/time", openapi_extra={"x-open": "tells the time"})
    def time() -> TimeJson:
        """The gateway's clock, for nodes that have no other."""
        return {"now_us": deps.now_us()}

    return router


@asynccontextmanager
async def listening(app: FastAPI, config: NodesConfig, care: Care, now_us: Callable[[], int]) -> AsyncIterator[int]:
    """Serves `app` over TLS while the block runs, and keeps certificates and the brokers' files as they should be. The port."""
    await asyncio.to_thread(_look, care, config.server_names, now_us)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(tls, care.authority.folder)
    async with serve(app, config.host, config.port, tls, "nodes.port") as got:
        looking = asyncio.create_task(_keep_looking(care, config.server_names, now_us, tls))
        try:
            yield got
        finally:
            looking.cancel()


async def _keep_looking(care: Care, names: list[str], now_us: Callable[[], int], tls: ssl.SSLContext) -> None:
    down = False
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            if await asyncio.to_thread(_look, care, names, now_us):
                _load(tls, care.authority.folder)
            if down:
                log.warning("the nodes' certificates can be kept again")
            down = False
        except (ConfigError, OSError, OperationalError) as error:
            if not down:
                log.error("the nodes' certificates can't be kept: %s; trying again", error)
            down = True


def _look(care: Care, names: list[str], now_us: Callable[[], int]) -> list[str]:
    """What had to be made anew of our own certificates."""
    made = care.authority.renew_own(names, now_us())
    if made:
        log.warning("new certificates, for the old ones end or bear other names: %s", ", ".join(made))
    care.brokers.tell(anyway=bool(made))
    care.claims.forget()
    return made


def _load(tls: ssl.SSLContext, folder: FilePath) -> None:
    try:
        tls.load_cert_chain(folder / f"{LISTENER}.pem", folder / f"{LISTENER}-key.pem", password="")
    except (OSError, ValueError) as error:
        raise ConfigError(f"nodes.folder: {folder}/{LISTENER}.pem and its key can't be used: {error}") from error


def _is_open(path: str) -> bool:
    """What proves itself by other means than a token, or tells nothing."""
    return path.startswith(CLAIMS) or path in (RENEWALS, TIME)


def _node_of(state: State, sha256: str, now_us: int) -> Actor | None:
    """Whose token it is: of a node that has a good certificate, for the token is no second identity beside it."""
    with state.read() as connection:
        node = connection.scalar(
            select(node_tokens.c.node).where(
                node_tokens.c.sha256 == sha256,
                node_tokens.c.revoked_us.is_(None),
                exists().where(
                    certificates.c.node == node_tokens.c.node,
                    certificates.c.revoked_us.is_(None),
                    certificates.c.not_after_us > now_us,
                ),
            )
        )
    return None if node is None else Actor(node, frozenset({"node"}))


def _problem(refused: Refused) -> Problem:
    headers = None if refused.wait_s is None else {"Retry-After": str(refused.wait_s)}
    return Problem(refused.status, str(refused), headers=headers)
