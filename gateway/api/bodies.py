"""What comes in, read strictly before a route sees it: what two readers could understand in two ways is refused.

Refused: another Content-Type than application/json, bytes that are no UTF-8, a byte order mark, a name that stands twice, NaN and
infinities, numbers that no column holds, what nests deeper than any request of ours, half of a surrogate pair and NUL, which no
database keeps. So is NUL in an address and in a form, and a form written in any other way than browsers write one by themselves.

Pure but for `StrictBodies`, the ASGI part. It stands behind the gate: a body is not read for anybody who may not come in.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Never

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.problems import Fault, refused

DEEPEST = 32
MOST = 2**63
"""No whole number is as large, on either side: columns have 64 bits."""
JSON, FORM, FILES = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
_LONGEST_NAME = 60


class NotPlain(ValueError):
    """Why a body is refused."""

    def __init__(self, why: str, where: str = "body", **facts: object) -> None:
        super().__init__(why)
        self.fault = Fault(where, f"fault.{why}", facts)


def read_json(body: bytes) -> Any:
    """The value. NotPlain says what is wrong with it."""
    try:
        written = body.decode("utf-8")
    except UnicodeDecodeError:
        raise NotPlain("utf8") from None
    if _depth(written) > DEEPEST:
        raise NotPlain("deep", n=DEEPEST)
    try:
        value = json.loads(written, object_pairs_hook=_object, parse_constant=_no_number, parse_int=_whole, parse_float=_number)
    except NotPlain:
        raise
    except ValueError as error:
        place = f" {error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise NotPlain("json", f"body{place}") from None
    _look(value, "body")
    return value


def _depth(written: str) -> int:
    """How deep brackets stand in each other, those in texts left out; without recursion, which deep ones would exhaust."""
    deepest = depth = 0
    in_text = escaped = False
    for sign in written:
        if in_text:
            escaped, in_text = (sign == "\\" and not escaped), (escaped or sign != '"')
        elif sign == '"':
            in_text = True
        elif sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise NotPlain("twice", name=_UNUSABLE.sub("?", name)[:_LONGEST_NAME])
        found[name] = value
    return found


def _no_number(_: str) -> Never:
    raise NotPlain("not_finite")


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -MOST < int(digits) < MOST:
        raise NotPlain("huge")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotPlain("huge")
    return number


def _look(value: Any, where: str) -> None:
    if isinstance(value, str):
        if _UNUSABLE.search(value):
            raise NotPlain("sign", where)
    elif isinstance(value, dict):
        for name, one in value.items():
            _look(name, where)
            _look(one, f"{where}.{name}"[: _LONGEST_NAME + len("body.")])
    elif isinstance(value, list):
        for number, one in enumerate(value):
            _look(one, f"{where}.{number}")


def mended(value: Any) -> Any:
    """What `json.loads` made of something that can't be refused, for others came with it: U+FFFD for what no database keeps."""
    if isinstance(value, str):
        return _UNUSABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {mended(name): mended(one) for name, one in value.items()}
    return [mended(one) for one in value] if isinstance(value, list) else value


class StrictBodies:
    """Hands on what `read_json` can read, and forms of fields that can be kept, byte for byte; answers the rest itself."""

    def __init__(self, app: ASGIApp, is_json: Callable[[str], bool], is_form: Callable[[str], bool] = lambda _: False) -> None:
        """`is_json`: below which paths every body is JSON. `is_form`: where it may be a form, of fields only."""
        self._app, self._is_json, self._is_form = app, is_json, is_form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\x00" in scope["path"] or b"%00" in scope.get("query_string", b"") or b"\x00" in scope.get("query_string", b""):
            # Nothing has such a name, and no database would even look.
            here = ("path", 404) if "\x00" in scope["path"] else ("query", 422)
            await refused(here[1], [Fault(here[0], "fault.sign", {})])(scope, receive, send)
            return
        headers = Headers(scope=scope)
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        as_json = self._is_json(scope["path"])
        as_form = self._is_form(scope["path"]) and kind in (FORM, FILES)
        if headers.get("Content-Length", "0") == "0" or not (as_json or as_form):
            await self._app(scope, receive, send)
            return
        # In parts each may say an encoding of its own: what is in them shows only once they are read.
        wanted = JSON if as_json else FORM
        if kind != wanted:
            await refused(415, [Fault("header.Content-Type", "fault.kind", {"expected": wanted})])(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
            if as_json:
                read_json(body)
            elif b"%00" in body or b"\x00" in body:
                raise NotPlain("sign")
        except ClientDisconnect:
            return  # nobody waits for an answer
        except NotPlain as wrong:
            await refused(422, [wrong.fault])(scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()  # that they went away
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)
