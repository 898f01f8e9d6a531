"""The application: the gate, the routes, errors as problems. Wiring only.

Routes are plain `def` wherever they touch a database or a disk: FastAPI runs those in its thread pool, and the event
loop stays free for the streams.
"""

from fastapi import APIRouter, FastAPI

from gateway.accounts.limits import Limits
from gateway.api import (
    account,
    accounts,
    alerts,
    answer,
    audit,
    consent_page,
    contacts,
    deliveries,
    devices,
    erasures,
    export,
    facts,
    family,
    finder,
    flow,
    hooks,
    hooks_twilio,
    installations,
    jobs,
    join,
    labels,
    login,
    looks,
    media,
    mimamori,
    nodes,
    open_data,
    operations,
    page,
    pages,
    push,
    push_page,
    readings,
    reports,
    rotating_tags,
    search,
    silences,
    stream,
    tiles,
    told_picture,
    traps,
    visit_page,
    web,
)
from gateway.api.bodies import StrictBodies
from gateway.api.deps import Deps
from gateway.api.described import describe
from gateway.api.gate import Gate, is_form, is_json
from gateway.api.measured import Measured
from gateway.api.outcomes import Outcomes
from gateway.api.problems import add_problem_handlers, describe_problems
from gateway.telemetry import version


def create_app(deps: Deps) -> FastAPI:
    """The gateway's web side, ready to be served."""
    app = FastAPI(
        title="satomori gateway",
        version=version(),
        # The built-in pages load scripts from elsewhere; the document has a route of its own, behind a token.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_problem_handlers(app)
    app.add_middleware(Outcomes, deps=deps)
    app.add_middleware(StrictBodies, is_json=is_json, is_form=is_form)
    limits = deps.accounts.limits if deps.accounts is not None else Limits(deps.now_us)
    app.add_middleware(Gate, tokens=deps.tokens, accounts=deps.accounts, limits=limits)
    app.add_middleware(Measured, telemetry=deps.telemetry)
    api = APIRouter(prefix="/api/v1")
    for group in (
        login,
        account,
        accounts,
        audit,
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
        jobs,
        installations,
        rotating_tags,
        flow,
        mimamori,
        labels,
        looks,
        erasures,
        search,
        traps,
        export,
        tiles,
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
        told = (deps.answer_page.links, deps.answer_page.zone, deps.answer_page.phone)
        app.include_router(consent_page.routes(deps, *told))
        app.include_router(labels.pages(deps, *told))
        app.include_router(finder.routes(deps, deps.answer_page.zone, deps.answer_page.phone))
    if deps.desk is not None:
        app.include_router(join.routes(deps, deps.desk))
        if deps.accounts is not None:
            app.include_router(login.pages(deps.accounts, deps.desk.zone, line=deps.line_secret is not None))
            app.include_router(account.pages(deps, deps.accounts, deps.desk.zone))
        if deps.push is not None:
            app.include_router(push_page.routes(deps.push, deps.desk.zone, deps.desk.phone))
    app.include_router(open_data.routes(deps))
    app.include_router(tiles.tiles_routes(deps))
    app.include_router(reports.routes(deps))
    app.include_router(page.routes())
    app.include_router(web.routes(deps.zone))
    describe_problems(app)
    describe(app)
    app.state.deps = deps
    app.state.feed = deps.feed  # so that the server can end the streams when it stops
    return app
