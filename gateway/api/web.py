"""The pages /install, /mimamori and /map and their assets, as `make web` built them: files without data, so they need no token.

Nothing is built here; only what the office is called is written into each page. A gateway that was installed without its pages
says so on each of them.
"""

import gzip
import hashlib
import html
import json
import mimetypes
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Header, Response
from fastapi import Path as InPath

from gateway.api.built import BUILT, PAGES
from gateway.api.problems import SECURITY_HEADERS, Problem
from gateway.pages import language_of, render
from gateway.words import LANGUAGES, office_in, text

WORKER = "/install-worker.js"
"""At the root, because a worker serves only what is below its own path."""
LICENCES = "/licences"
"""Of the packages that are in the pages' scripts: they ask that their words travel with them."""
ASSETS = "/web/assets/"

OWN_HEADERS = {
    "/install": {
        "Content-Security-Policy": SECURITY_HEADERS["Content-Security-Policy"]
        + "; img-src 'self' blob: data:; worker-src 'self' blob:",
        "Permissions-Policy": SECURITY_HEADERS["Permissions-Policy"]
        .replace("camera=()", "camera=(self)")
        .replace("geolocation=()", "geolocation=(self)"),
    },
    "/map": {"Content-Security-Policy": SECURITY_HEADERS["Content-Security-Policy"] + "; img-src 'self' blob:"},
}
"""Installers take photos, read QR codes (in a worker that the library makes of a blob), and want to know where they are; a map
blanks a tile by an empty image of its own. The town's page reads a picture by its token, and then shows it."""

_FOR_EVER = "public, max-age=31536000, immutable"
Accepts = Annotated[str | None, Header(alias="Accept-Encoding", max_length=500)]
Language = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]
Known = Annotated[str | None, Header(alias="If-None-Match", max_length=2000)]
NamePath = Annotated[str, InPath(max_length=200)]


class File(NamedTuple):
    """One file in both of its forms."""

    plain: bytes
    gzipped: bytes | None
    content_type: str
    etag: str


def routes(zone: ZoneInfo, built: Path = BUILT) -> APIRouter:
    """GET and HEAD of each page and each asset, as they were when the process first looked."""
    router = APIRouter(include_in_schema=False)
    files = _read(built)
    for path, name in PAGES.items():
        for one in (path, f"{path}/"):
            router.add_api_route(one, _page(_named(files.get(name)), zone, OWN_HEADERS.get(path, {})), methods=["GET", "HEAD"])
    worker = _page(files.get(WORKER.removeprefix("/")), zone, {})
    router.add_api_route(WORKER, worker, methods=["GET", "HEAD"])
    router.add_api_route(LICENCES, _page(files.get("LICENSES.txt"), zone, {}), methods=["GET", "HEAD"])

    @router.api_route(ASSETS + "{name}", methods=["GET", "HEAD"])
    def asset(name: NamePath, accepts: Accepts = None) -> Response:
        """Its name holds a hash of what is in it, so it never changes."""
        file = files.get(f"assets/{name}")
        if file is None:
            raise Problem(404, "why.no_web_file")
        return _answer(file, accepts, _FOR_EVER)

    return router


@cache
def _read(built: Path) -> dict[str, File]:
    """By their path in `built`; empty where nothing is. Beside a file may lie its `.gz`."""
    found = {}
    for path in sorted(built.rglob("*")):
        if not path.is_file() or path.suffix in ("", ".gz"):
            continue
        packed, content = path.with_name(f"{path.name}.gz"), path.read_bytes()
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if content_type.startswith("text/"):
            content_type += "; charset=utf-8"
        found[path.relative_to(built).as_posix()] = File(
            content, packed.read_bytes() if packed.is_file() else None, content_type, _etag(content)
        )
    return found


def _named(page: File | None) -> File | None:
    """The page with the office's name in its head, in each language; its sentences speak of `{office}`."""
    if page is None:
        return None
    names = json.dumps({language: office_in(language) for language in LANGUAGES}, ensure_ascii=False)
    meta = f'<meta name="office" content="{html.escape(names)}">'.encode()
    plain = page.plain.replace(b"</head>", meta + b"</head>", 1)
    return File(plain, gzip.compress(plain, mtime=0) if page.gzipped is not None else None, page.content_type, _etag(plain))


def _etag(content: bytes) -> str:
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: both forms are one


def _page(file: File | None, zone: ZoneInfo, own: Mapping[str, str]) -> Callable[..., Response]:
    def page(accepts: Accepts = None, known: Known = None, language: Language = None) -> Response:
        if file is None:
            reads = language_of(language)
            title, body = text(reads, "screen.web_missing.title"), text(reads, "screen.web_missing.body")
            return render("problem.html", reads, zone, status=503, title=title, body=body, phone=None)
        if file.etag in re.split(r"\s*,\s*", known or ""):
            headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **own}
            return Response(status_code=304, headers=headers)
        answer = _answer(file, accepts, "no-cache")
        answer.headers.update(own)
        return answer

    return page


def _answer(file: File, accepts: str | None, keeping: str) -> Response:
    headers = {"Content-Type": file.content_type, "Cache-Control": keeping, "ETag": file.etag, "Vary": "Accept-Encoding"}
    if file.gzipped is not None and _takes_gzip(accepts):
        return Response(file.gzipped, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.plain, headers=headers)


def _takes_gzip(accepts: str | None) -> bool:
    return any(re.fullmatch(r"gzip(;q=(1(\.0*)?|0?\.0*[1-9]\d*))?", one.replace(" ", "")) for one in (accepts or "").split(","))
