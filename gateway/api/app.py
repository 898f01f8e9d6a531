"""The application: the gate, the routes, errors as problems. Wiring only.

Routes are plain `def` wherever they touch a database or a disk: FastAPI runs those in its thread pool, and the event
loop stays free for the streams.
"""

from fastapi import APIRouter, FastAPI

from gateway.api import (
    alerts,
    answer,
    contacts,
    deliveries,
    devices,
    facts,
    family,
    flow,
    hooks,
    hooks_twilio,
    join,
    media,
    mimamori,
    nodes,
    operations,
    page,
    pages,
    push,
    push_page,
    readings,
    rotating_tags,
    search,
    silences,
    stream,
    told_picture,
    traps,
    visit_page,
)
from gateway.api.deps import Deps
from gateway.api.gate import Gate
from gateway.api.problems import add_problem_handlers


def create_app(deps: Deps) -> FastAPI:
    """The gateway's web side, ready to be served."""
    app = FastAPI(
        title="satomori gateway",
        version=operations.version(),
        # The built-in pages load scripts from elsewhere; the document has a route of its own, behind a token.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_problem_handlers(app)
    app.add_middleware(Gate, tokens=deps.tokens)
    api = APIRouter(prefix="/api/v1")
    for group in (
        contacts,
        deliveries,
        devices,
        readings,
        facts,
        alerts,
        silences,
        pages,
        stream,
        media,
        nodes,
        rotating_tags,
        flow,
        mimamori,
        search,
        traps,
        operations,
    ):
        api.include_router(group.routes(deps))
    api.include_router(push.routes(deps.push))
    app.include_router(api)
    app.include_router(operations.metrics_route(deps))
    app.include_router(hooks.routes(deps))
    app.include_router(hooks_twilio.routes(deps.twilio))
    if deps.answer_page is not None:
        app.include_router(answer.routes(deps.answer_page, told_picture.looking(deps.media)))
        app.include_router(told_picture.routes(deps.answer_page, deps.media))
        app.include_router(visit_page.routes(deps, deps.answer_page.links, deps.answer_page.zone))
        app.include_router(family.routes(deps, deps.answer_page.links, deps.answer_page.zone))
    if deps.desk is not None:
        app.include_router(join.routes(deps, deps.desk))
        if deps.push is not None:
            app.include_router(push_page.routes(deps.push, deps.desk.zone, deps.desk.phone))
    app.include_router(page.routes())
    app.state.feed = deps.feed  # so that the server can end the streams when it stops
    return app
