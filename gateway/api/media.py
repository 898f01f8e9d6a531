"""media/{sha256}: a picture comes in piece by piece, goes on where it broke off, can be fetched, is said to be free of persons.

    HEAD   204, Upload-Offset: n, Upload-Complete: ?0     go on from n
           200, Upload-Complete: ?1                       the gateway has all of it: the sender may delete its copy
    PATCH  with Upload-Offset, Upload-Length, Content-Type and bytes: 204 or 200 as above;
           409 and the right Upload-Offset; 413, 415: never will be taken, by what was said of it or by what it is; 422: the
           bytes are not what the name says; 429, 507: not now, this person or node has sent as much as one may, or no room
    GET    403 where a person may be in it and the asker may not see such: before, and whether or not, it is here; without
           what it says besides what it shows (gateway.stripping). `/thumbnail` likewise, small. `/original` gives the bytes as
           they came, to few, who say why

Header names as in the IETF's draft "Resumable Uploads for HTTP".
"""

import errno
import math
import uuid
from collections.abc import Callable
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from sqlalchemy import Connection, select
from starlette.requests import ClientDisconnect

from edge.contract.events import MAX_SEQ
from gateway import thumbnails
from gateway.accounts.limits import UPLOAD_BYTES, Limits
from gateway.api import things
from gateway.api.deps import Deps, Sha256Path, permitted
from gateway.api.problems import Problem
from gateway.api.shapes import PictureJson, PicturesJson
from gateway.api.stripped import has, stripped
from gateway.audit.acts import who_of
from gateway.audit.chain import record
from gateway.installations import photo_of
from gateway.keeping import pictures
from gateway.keeping.ledger import Line, note
from gateway.media import (
    CONTENT_TYPES,
    Kept,
    MediaShelf,
    Mislabelled,
    TooLarge,
    TooManyPixels,
    WrongContent,
    WrongOffset,
    WrongType,
)
from gateway.pictures import clear, is_open, unclear
from gateway.policy import Actor, Thing, authorize, may
from gateway.state import tables

DRAIN_BYTES = 1024 * 1024

Length = Annotated[int, Header(ge=0, le=MAX_SEQ)]
WhyQuery = Annotated[
    str, Query(min_length=1, max_length=200, description="What the original is needed for, in the person's words.")
]
ErasedQuery = Annotated[
    str, Query(min_length=1, max_length=200, description="Why it must go before its time, in the person's words.")
]
_ANY_MEDIA: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in CONTENT_TYPES}}}


def routes(deps: Deps) -> APIRouter:
    """HEAD, PATCH, GET, DELETE /media/{sha256}; GET .../thumbnail, .../original; POST, DELETE .../clear."""
    router = APIRouter()
    shelf, limits = deps.media, Limits(deps.now_us)

    @router.head("/media/{sha256}", status_code=204, response_class=Response)
    def how_far(_: Annotated[Actor, Depends(permitted("media.upload"))], sha256: Sha256Path) -> Response:
        """How much of it is here."""
        kept = shelf.find(sha256)
        return _whole(kept) if kept else _so_far(shelf.offset(sha256))

    @router.patch(
        "/media/{sha256}",
        status_code=204,
        response_class=Response,
        openapi_extra={"requestBody": {"content": {kind: {} for kind in CONTENT_TYPES}}},
    )
    async def go_on(
        request: Request,
        actor: Annotated[Actor, Depends(permitted("media.upload"))],
        sha256: Sha256Path,
        upload_offset: Length,
        upload_length: Length,
        content_type: Annotated[str, Header(max_length=100)],
    ) -> Response:
        """Appends bytes. What arrived stays, however the request ends."""
        if kept := await run_in_threadpool(shelf.find, sha256):
            await _drain(request)
            return _whole(kept)
        if actor.account is not None and (wait_s := limits.closed_s("upload", actor.account)):
            await _drain(request)
            raise Problem(429, "why.uploads", headers={"Retry-After": str(wait_s)})

        def took(count: int) -> None:
            deps.telemetry.upload_bytes.inc(count)
            if actor.account is not None:
                limits.spend("upload", actor.account, math.ceil(count / UPLOAD_BYTES))

        try:
            answer = await _take(request, shelf, sha256, upload_offset, upload_length, content_type, took)
            deps.telemetry.uploads.inc(answer.status_code == 200)
            return answer
        except ClientDisconnect:
            return Response(status_code=204)  # to nobody; the sender asks again where we are
        except WrongOffset as wrong:
            await _drain(request)
            raise Problem(409, "why.upload_from", {"offset": str(wrong.offset)}, headers=_offset(wrong.offset)) from wrong
        except (TooLarge, WrongType, WrongContent) as refused:
            await _drain(request)
            raise _refusal(refused, shelf) from refused
        except OSError as error:
            if error.errno == errno.EDQUOT:
                raise Problem(507, "why.shelf_full", headers={"Retry-After": "600"}) from error
            if error.errno != errno.ENOSPC:
                raise
            raise Problem(507, "why.disk_full", headers={"Retry-After": "600"}) from error

    _add_giving_out(router, deps)
    _add_clearing(router, deps)
    return router


def _add_giving_out(router: APIRouter, deps: Deps) -> None:
    shelf = deps.media
    one_at_a_time = CapacityLimiter(1)  # a picture that is decoded takes a core and 100 MB; who waits for it holds no thread

    @router.get("/media/{sha256}", response_class=Response, responses=_ANY_MEDIA)
    def fetch(
        request: Request,
        actor: Annotated[Actor, Depends(permitted("media.read", things.picture, own=things.own_photo))],
        sha256: Sha256Path,
    ) -> Response:
        """The picture, without position, camera's number or comments. Where a person may be in it, it opens to few.

        An installer's photo opens to who took it and who may see what it was taken of: no camera took it of whoever came by.
        """
        kept = _shown_to(deps, actor, sha256)
        answer = stripped(kept, request.headers, {"Content-Disposition": f'attachment; filename="{_file_name(kept)}"'})
        if answer is None:
            raise Problem(404, "why.picture_unshown", {"kind": kept.content_type})
        return answer

    @router.get("/media/{sha256}/thumbnail", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    async def fetch_small(
        request: Request,
        actor: Annotated[Actor, Depends(permitted("media.read", things.picture, own=things.own_photo))],
        sha256: Sha256Path,
    ) -> Response:
        """The picture as a JPEG of at most 320 pixels a side, for lists. To whom the picture opens; 404 for films."""
        kept = await run_in_threadpool(_shown_to, deps, actor, sha256)
        etag = f'"{sha256}-small-{thumbnails.VERSION}"'
        # Asked anew each time: somebody may have seen a person in it since.
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if has(request.headers, etag):
            return Response(status_code=304, headers=headers)
        made = await to_thread.run_sync(shelf.small, kept, limiter=one_at_a_time)
        if made is None:
            raise Problem(404, "why.picture_not_small")
        return Response(made, headers=headers, media_type="image/jpeg")

    @router.delete("/media/{sha256}", status_code=204, response_class=Response)
    def erase(
        actor: Annotated[Actor, Depends(permitted("media.erase", enters=True))], sha256: Sha256Path, why: ErasedQuery
    ) -> Response:
        """Deletes it for good, as when somebody who is in it asks for that. 409 for a capture's papers."""
        with deps.state.write() as connection:
            try:
                there_was = pictures.erase(connection, sha256)
            except pictures.InPapers as error:
                raise Problem(409, error) from error
            if not there_was:
                raise Problem(404, "why.no_picture")
            try:  # so that it is deleted again in what is restored later
                note(connection, Line(str(uuid.uuid4()), "picture", sha256, deps.now_us(), who_of(actor)))
            except OSError as error:
                raise Problem(503, "why.not_noted") from error
            record(connection, who_of(actor), "media.erase", f"media/{sha256}", deps.now_us(), why=why)
        shelf.discard(sha256)
        return Response(status_code=204)

    @router.get("/media/{sha256}/original", response_class=FileResponse, responses=_ANY_MEDIA)
    def fetch_original(
        actor: Annotated[Actor, Depends(permitted("media.original"))], sha256: Sha256Path, why: WhyQuery
    ) -> FileResponse:
        """The bytes as they came, with what they say besides: as evidence. Who took them, and why, stands in the audit trail."""
        kept = _here(shelf, sha256)
        with deps.state.write() as connection:
            record(connection, who_of(actor), "media.original", f"media/{sha256}", deps.now_us(), why=why)
        return FileResponse(
            kept.path, media_type=kept.content_type, filename=_file_name(kept), content_disposition_type="attachment"
        )


def _shown_to(deps: Deps, actor: Actor, sha256: str) -> Kept:
    """The picture, where it opens to the actor. Forbidden where not, whether it is here or not; 404."""
    with deps.state.read() as connection:
        everybodys = is_open(connection, sha256)
        put_up = [] if everybodys else photo_of(connection, sha256)
    if not everybodys and not any(_shows(deps, actor, *one) for one in put_up):
        authorize(actor, "media.read-uncleared", None, deps.world)
    return _here(deps.media, sha256)


def _shows(deps: Deps, actor: Actor, node: str, device: str, account: str | None) -> bool:
    """Whether the actor sees the installation of this device, which this account put up."""
    own = account is not None and actor.account == account
    return own or may(actor, "installation.read", Thing(node, device), deps.world)


def _add_clearing(router: APIRouter, deps: Deps) -> None:
    @router.post("/media/{sha256}/clear")
    def say_clear(actor: Annotated[Actor, Depends(permitted("media.clear"))], sha256: Sha256Path) -> PicturesJson:
        """Says that no person is in it. Again: changes nothing, who said so first stays."""
        with deps.state.write() as connection:
            clear(connection, sha256, actor.name, deps.now_us())
            return _told(connection, sha256)

    @router.delete("/media/{sha256}/clear")
    def take_back(_: Annotated[Actor, Depends(permitted("media.clear"))], sha256: Sha256Path) -> PicturesJson:
        """Takes that back."""
        with deps.state.write() as connection:
            unclear(connection, sha256)
            return _told(connection, sha256)


def _refusal(refused: TooLarge | WrongType | WrongContent, shelf: MediaShelf) -> Problem:
    match refused:
        case TooManyPixels():
            return Problem(413, "why.picture_pixels", {"n": shelf.most_megapixels})
        case Mislabelled():
            return Problem(415, "why.picture_mislabelled")
        case TooLarge():
            return Problem(413, "why.picture_large", {"n": shelf.limit_bytes})
        case WrongType():
            return Problem(415, "why.picture_kind", {"kinds": ", ".join(CONTENT_TYPES)})
        case WrongContent():
            return Problem(422, "why.picture_broken")


def _here(shelf: MediaShelf, sha256: str) -> Kept:
    kept = shelf.find(sha256)
    if kept is None or kept.content_type not in CONTENT_TYPES:
        raise Problem(404, "why.no_picture")
    return kept


def _file_name(kept: Kept) -> str:
    return f"{kept.sha256[:16]}.{CONTENT_TYPES[kept.content_type]}"


def _told(connection: Connection, sha256: str) -> PicturesJson:
    """What is known of a picture. 404 where no node ever told of it."""
    everybodys = is_open(connection, sha256)
    rows = connection.execute(
        select(tables.pictures).where(tables.pictures.c.sha256 == sha256).order_by(tables.pictures.c.node)
    ).all()
    if not rows:
        raise Problem(404, "why.picture_untold")
    found: list[PictureJson] = [
        {
            "sha256": row.sha256,
            "node": row.node,
            "device": row.device,
            "content": row.content,
            "withheld": row.withheld,
            "captured_us": row.captured_us,
            "cleared_us": row.cleared_us,
            "cleared_by": row.cleared_by,
            "open": everybodys,
        }
        for row in rows
    ]
    return {"pictures": found}


async def _take(
    request: Request, shelf: MediaShelf, sha256: str, offset: int, length: int, content_type: str, took: Callable[[int], None]
) -> Response:
    """`took` is told how many bytes were kept, however the request ends."""
    await run_in_threadpool(shelf.check, sha256, offset, length, content_type)
    began = offset
    try:
        async for piece in request.stream():
            if piece:
                offset = await run_in_threadpool(shelf.append, sha256, offset, length, piece)
    finally:
        took(offset - began)
        await run_in_threadpool(shelf.flush, sha256)
    if offset < length:
        return _so_far(offset)
    return _whole(await run_in_threadpool(shelf.finish, sha256, length, content_type))


async def _drain(request: Request) -> None:
    """Reads on before a refusal: a client that is still sending would see a broken connection, not the answer."""
    drained = 0
    try:
        async for piece in request.stream():
            drained += len(piece)
            if drained > DRAIN_BYTES:
                return
    except (ClientDisconnect, RuntimeError):
        return  # gone, or all of it was read before


def _offset(offset: int) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Complete": "?0"}


def _so_far(offset: int) -> Response:
    return Response(status_code=204, headers=_offset(offset))


def _whole(kept: Kept) -> Response:
    size = str(kept.size)
    return Response(status_code=200, headers={"Upload-Offset": size, "Upload-Length": size, "Upload-Complete": "?1"})
