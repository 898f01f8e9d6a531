"""The page behind a printed QR: GET /join/{code} shows how to join, POST /join/{code} takes a mail address or telephone number,
or leads to the page that subscribes a browser.

No login: who has the code may come in. Nobody learns here who else has: whatever address is given, the answer is the same, and
a test goes to it.
"""

from typing import Annotated, NamedTuple, get_args

from fastapi import APIRouter, Form, Header, Path, Response
from fastapi.responses import RedirectResponse

from gateway.api.deps import Deps
from gateway.contacts.address import AddressChannel
from gateway.contacts.desk import Desk
from gateway.contacts.join import Joined, Open, Refused, read_code, shown
from gateway.notify.message import Language
from gateway.pages import language_of, render
from gateway.words import LANGUAGES, text, words

CodePath = Annotated[str, Path(max_length=40)]
Accepts = Annotated[str | None, Header(alias="Accept-Language", max_length=500)]
Typed = Annotated[str, Form(max_length=300)]


def routes(deps: Deps, desk: Desk) -> APIRouter:
    """GET, HEAD and POST /join/{code}."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/join/{code}", methods=["GET", "HEAD"])
    def page(code: CodePath, accept_language: Accepts = None) -> Response:
        """What the code is for, and the form."""
        with deps.state.read() as connection:
            opened = desk.joining.opened(connection, code, deps.now_us())
        if isinstance(opened, Refused):
            return _refused(desk, opened, language_of(accept_language))
        return _form(desk, code, opened, _reads(opened, accept_language), _Filled(name=opened.name or ""))

    @router.post("/join/{code}")
    def join(
        code: CodePath,
        name: Typed = "",
        channel: Typed = "",
        address: Typed = "",
        language: Typed = "",
        accept_language: Accepts = None,
    ) -> Response:
        """Joins, and says that a test is on its way; or shows the form again with what is wrong."""
        now_us = deps.now_us()
        with deps.state.write() as connection:
            opened = desk.joining.opened(connection, code, now_us)
            if isinstance(opened, Refused):
                return _refused(desk, opened, language_of(accept_language))
            reads = next((one for one in LANGUAGES if one == language), None) or _reads(opened, accept_language)
            by: AddressChannel | None = next((one for one in get_args(AddressChannel) if one == channel), None)
            outcome: object = Refused("wrong_address")
            if by == "push" and desk.push_url is not None:
                outcome = desk.joining.join_without(connection, code, name, reads, now_us)
            elif by in desk.offers and by is not None:
                outcome = desk.joining.join(connection, code, by, address, name, reads, now_us) if name.strip() else _NAMELESS
        if isinstance(outcome, Joined) and by == "push" and desk.push_url is not None:
            # Only for a contact that has just come to be: for somebody known it would open the way into their messages.
            return RedirectResponse(desk.push_url(outcome.contact, now_us), 303, {"Cache-Control": "no-store"})
        if not isinstance(outcome, Refused):
            said = words(reads, "contact.joined", group=opened.label)
            return render("problem.html", reads, desk.zone, title=said.title, body=said.body)
        if outcome.why not in ("wrong_name", "wrong_address"):
            return _refused(desk, outcome, reads)
        fault = text(reads, "screen.join_name_wrong" if outcome.why == "wrong_name" else "screen.join_address_wrong")
        return _form(desk, code, opened, reads, _Filled(name, channel, address, fault))

    return router


_NAMELESS = Refused("wrong_name")


def _reads(opened: Open, accept: str | None) -> Language:
    """English for whose browser asks for it, else the group's language."""
    return "en" if language_of(accept) == "en" and accept else opened.language


class _Filled(NamedTuple):
    """What stands in the form, and what is wrong with it."""

    name: str = ""
    channel: str = ""
    address: str = ""
    fault: str = ""


def _form(desk: Desk, code: str, opened: Open, language: Language, filled: _Filled) -> Response:
    by = {
        "mail": text(language, "screen.join_mail"),
        "sms": text(language, "screen.join_sms"),
        "voice": text(language, "screen.join_voice"),
        "push": text(language, "screen.join_push"),
    }
    return render(
        "join.html",
        language,
        desk.zone,
        status=422 if filled.fault else 200,
        label=opened.label,
        code=shown(read_code(code) or ""),
        friend_url=desk.friend_url,
        offers=[(one, by[one]) for one in (*desk.offers, *(("push",) if desk.push_url else ())) if one in by],
        languages=[(one, text(one, "screen.join_called")) for one in LANGUAGES],
        chosen=language,
        filled=filled,
    )


def _refused(desk: Desk, refused: Refused, language: Language) -> Response:
    """The same for a code that never was and for one that is over: who guesses learns nothing."""
    limited = refused.why == "limited"
    said = words(language, "contact.too_many" if limited else "contact.code_wrong")
    answer = render(
        "problem.html", language, desk.zone, status=429 if limited else 404, title=said.title, body=said.body, phone=desk.phone
    )
    if limited and refused.wait_s:
        answer.headers["Retry-After"] = str(refused.wait_s)
    return answer
