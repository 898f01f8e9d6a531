"""/open/: what everybody may have, without a login. What may be in it is gateway.open_data's to say; here it becomes bytes.

    /open/               what there is, in words
    /open/flow.csv       hours of published days: `day` rows are a day's sum
    /open/flow.json      the same
    /open/captures.csv   per month, kind and square
    /open/catalog.json   all of it for catalogues: DCAT 3 in JSON-LD

The same facts give the same bytes, and an ETag.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from gateway.accounts.limits import Limits, asker
from gateway.api.deps import Deps
from gateway.api.problems import Problem, reads
from gateway.csvs import MEDIA_TYPE, Cell, whole
from gateway.open_data import LICENCES, OpenDataConfig, OpenDay
from gateway.open_data import Cell as OpenCell
from gateway.open_days import newest_published, published, published_captures
from gateway.pages import render
from gateway.words import text

EVERYBODYS = {"x-open": "open data: numbers that tell of nobody"}
KEPT_S = 3600

MonthQuery = Annotated[str | None, Query(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="Only this month, as 2026-06.")]

_FLOW = ("area", "label", "kind", "start", "came", "came_state", "left", "left_state", "coverage_percent")
_CAPTURES = ("month", "mesh", "species", "captures")


def routes(deps: Deps) -> APIRouter:
    """All of /open/; nothing without `[open_data]`."""
    limits = Limits(deps.now_us)

    def light(request: Request) -> None:
        wait_s = limits.wait_s("open", asker(request.client.host if request.client else None))
        if wait_s:
            raise Problem(429, "why.at_once", headers={"Retry-After": str(wait_s)})

    router = APIRouter(prefix="/open", dependencies=[Depends(light)])
    config = deps.open_data
    if config is not None:
        router.add_api_route("", lambda: RedirectResponse("/open/", 308), include_in_schema=False)
        _add_tables(router, deps, config)
        _add_about(router, deps, config)
    return router


def _add_tables(router: APIRouter, deps: Deps, config: OpenDataConfig) -> None:
    def days(month: str | None) -> list[OpenDay]:
        with deps.state.read() as connection:
            return published(connection, config.areas, month)

    if config.areas:

        @router.get("/flow.csv", openapi_extra=EVERYBODYS, response_class=Response)
        def flow_csv(request: Request, month: MonthQuery = None) -> Response:
            """How many came and left, by hour and day."""
            return _given(request, whole(_FLOW, (row for day in days(month) for row in _flow_rows(day))), MEDIA_TYPE)

        @router.get("/flow.json", openapi_extra=EVERYBODYS, response_class=Response)
        def flow_json(request: Request, month: MonthQuery = None) -> Response:
            """The same."""
            return _given(request, _json({"publisher": config.publisher, "licence": config.licence, "days": days(month)}))

    if config.captures:

        @router.get("/captures.csv", openapi_extra=EVERYBODYS, response_class=Response)
        def captures_csv(request: Request) -> Response:
            """What was caught: complete dossiers of months that are over."""
            with deps.state.read() as connection:
                found = published_captures(connection)
            table = whole(_CAPTURES, ((one["month"], one["mesh"], one["species"], one["captures"]) for one in found))
            return _given(request, table, MEDIA_TYPE)


def _add_about(router: APIRouter, deps: Deps, config: OpenDataConfig) -> None:
    @router.get("/catalog.json", openapi_extra=EVERYBODYS, response_class=Response)
    def catalog(request: Request) -> Response:
        """What there is, for catalogues."""
        return _given(request, _json(_catalog(config)), "application/ld+json")

    @router.get("/", include_in_schema=False, response_class=Response)
    def page(request: Request) -> Response:
        """What there is, in words."""
        with deps.state.read() as connection:
            newest = newest_published(connection, config.areas)
        made = render(
            "open_data.html", reads(request.scope), deps.zone, switch=True,
            publisher=config.publisher, licence=config.licence, licence_url=LICENCES[config.licence],
            areas=[deps.areas[name].label for name in config.areas if name in deps.areas],
            captures=config.captures, delay_days=config.delay_days, newest=newest,
        )  # fmt: skip
        del made.headers["X-Robots-Tag"]  # this one is to be found
        answer = _given(request, bytes(made.body), "text/html; charset=utf-8")
        answer.headers.update({"Vary": "Accept-Language", "Content-Security-Policy": made.headers["Content-Security-Policy"]})
        return answer


def _flow_rows(day: OpenDay) -> Iterator[Sequence[Cell]]:
    for hour in day["hours"]:
        came, left = _cells(hour["came"]), _cells(hour["left"])
        yield day["area"], day["label"], "hour", hour["start"], *came, *left, hour["coverage_percent"]
    yield day["area"], day["label"], "day", day["day"], *_sums(day, "came"), *_sums(day, "left"), day["coverage_percent"]


def _cells(cell: OpenCell) -> tuple[int | None, str]:
    return cell["people"], cell["state"]


def _sums(day: OpenDay, way: Literal["came", "left"]) -> tuple[int | None, str]:
    """The day's sum; where it would tell, what its shown hours come to, and that it is this. None where all is unknown."""
    if all(hour[way]["state"] == "unknown" for hour in day["hours"]):
        return None, "unknown"
    total = day[way]
    return (total["at_least"], "at_least") if total["people"] is None else (total["people"], "number")


def _catalog(config: OpenDataConfig) -> dict[str, Any]:
    flow_files = (("flow.csv", "text/csv"), ("flow.json", "application/json"))
    flow = _dataset(config, "flow", flow_files)
    caught = _dataset(config, "captures", (("captures.csv", "text/csv"),))
    return {
        "@context": {"dcat": "http://www.w3.org/ns/dcat#", "dct": "http://purl.org/dc/terms/", "foaf": "http://xmlns.com/foaf/0.1/"},
        "@id": "/open/catalog.json",
        "@type": "dcat:Catalog",
        "dct:publisher": {"@type": "foaf:Agent", "foaf:name": config.publisher},
        "dct:license": {"@id": LICENCES[config.licence]},
        "dcat:dataset": [*([flow] if config.areas else []), *([caught] if config.captures else [])],
    }  # fmt: skip


def _dataset(config: OpenDataConfig, name: str, files: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "@id": f"/open/#{name}",
        "@type": "dcat:Dataset",
        "dct:title": [{"@value": text(one, f"screen.open.{name}"), "@language": one} for one in ("ja", "en")],
        "dct:license": {"@id": LICENCES[config.licence]},
        "dct:publisher": {"@type": "foaf:Agent", "foaf:name": config.publisher},
        "dcat:distribution": [
            {
                "@type": "dcat:Distribution",
                "dcat:downloadURL": {"@id": f"/open/{file}"},
                "dcat:mediaType": kind,
                "dct:license": {"@id": LICENCES[config.licence]},
            }
            for file, kind in files
        ],
    }


def _json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _given(request: Request, body: bytes, media_type: str = "application/json") -> Response:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": f"public, max-age={KEPT_S}", "Access-Control-Allow-Origin": "*"}
    if etag in (one.strip().removeprefix("W/") for one in request.headers.get("If-None-Match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)
