"""The map: its tiles, and what a page must know of them. Maps are everybody's, so tiles need no login, and are given by measure.

/tiles/{style}/{z}/{x}/{y}.png    an image, or 404; 503 with Retry-After while its source can't be reached
/api/v1/map                       styles, whose map it is, zooms, where the caller's devices stand, and pages of the town's own
"""

import asyncio
import math
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from typing_extensions import TypedDict

from gateway.accounts.limits import Limits, asker
from gateway.api.deps import Deps, sifted
from gateway.api.problems import NotHere, Problem
from gateway.installations import places
from gateway.policy import Actor, Thing, extent
from gateway.tiles import SourceDown

EVERYBODYS = {"x-open": "maps are everybody's; so many of one address"}
KEPT_S = 86_400
"""So long a browser asks for a tile no more."""

StylePath = Annotated[str, Path(pattern=r"^[a-z]{1,20}$")]
ZoomPath = Annotated[int, Path(ge=0, le=24)]
NumberPath = Annotated[int, Path(ge=0, lt=2**24)]


class AttributionJson(TypedDict):
    """What must stand on the map, as a link where there is a `url`."""

    text: str
    url: str | None


class TownLinkJson(TypedDict):
    """A page of the town's own."""

    label: str
    url: str


class MapJson(TypedDict):
    """`links` stand at its foot. `bounds` (south-west, north-east) and `centre` are latitude and longitude, degrees; null: no
    device has a position.

    No `styles`: there are no tiles.
    """

    styles: list[str]
    attribution: AttributionJson | None
    min_zoom: int | None
    max_zoom: int | None
    centre: list[float] | None
    bounds: list[list[float]] | None
    links: list[TownLinkJson]


def tiles_routes(deps: Deps) -> APIRouter:
    """GET /tiles/{style}/{z}/{x}/{y}.png."""
    router = APIRouter()
    limits = Limits(deps.now_us)

    @router.get("/tiles/{style}/{z}/{x}/{y}.png", openapi_extra=EVERYBODYS, response_class=Response,
                responses={200: {"content": {"image/png": {}, "image/jpeg": {}, "image/webp": {}}}})  # fmt: skip
    async def tile(request: Request, style: StylePath, z: ZoomPath, x: NumberPath, y: NumberPath) -> Response:
        """One image of the map, 256 pixels square."""
        if deps.tiles is None:
            raise NotHere("[map]")
        if wait_s := limits.wait_s("tile", asker(request.client.host if request.client else None)):
            raise Problem(429, "why.at_once", headers={"Retry-After": str(wait_s)})
        asked = await run_in_threadpool(deps.tiles.tile, style, z, x, y)
        try:
            # Shielded: who goes away meanwhile takes it from nobody else.
            found = await asyncio.shield(asyncio.wrap_future(asked))
        except SourceDown as down:
            raise Problem(503, "why.tiles_down", headers={"Retry-After": str(down.wait_s)}) from down
        if found is None:
            raise Problem(404, "why.no_tile")
        headers = {"ETag": found.etag, "Cache-Control": f"public, max-age={KEPT_S}"}
        if found.etag in (one.strip() for one in request.headers.get("If-None-Match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.content_type)

    return router


def routes(deps: Deps) -> APIRouter:
    """GET /map."""
    router = APIRouter()

    @router.get("/map")
    def map_(actor: Annotated[Actor, Depends(sifted("device.read"))]) -> MapJson:
        """What a page needs to show the map. Of who has no device with a position: about where the town is."""
        theirs, tiles = extent(actor, "device.read", deps.world), deps.tiles
        with deps.state.read() as connection:
            measured = places(connection)
        at = {(one.node, one.device): measured.get((one.node, one.device), one.at) for one in deps.deployments}
        stand = [place for place in at.values() if place is not None]
        own = [place for thing, place in at.items() if place is not None and theirs.covers(Thing(*thing))]
        bounds = _around(own) if own else _widened(_around(stand)) if stand else None
        said = tiles.attribution if tiles is not None else None
        return {
            "styles": list(tiles.styles) if tiles is not None else [],
            "attribution": {"text": said.text, "url": said.url} if said is not None else None,
            "min_zoom": tiles.zooms[0] if tiles is not None else None,
            "max_zoom": tiles.zooms[1] if tiles is not None else None,
            "centre": [round((low + high) / 2, 6) for low, high in zip(*bounds, strict=True)] if bounds else None,
            "bounds": bounds,
            "links": [{"label": one.label, "url": one.url} for one in deps.links],
        }

    return router


def _around(places: list[tuple[float, float]]) -> list[list[float]]:
    latitudes, longitudes = zip(*places, strict=True)
    return [[min(latitudes), min(longitudes)], [max(latitudes), max(longitudes)]]


def _widened(bounds: list[list[float]]) -> list[list[float]]:
    """To whole tenths of a degree, some 10 km: it tells of no single device where it stands."""
    low, high = bounds
    return [[math.floor(one * 10) / 10 for one in low], [math.ceil(one * 10) / 10 for one in high]]
