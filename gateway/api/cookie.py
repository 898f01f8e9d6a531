"""The cookie of a session: its name, how it is set, how it is taken back. Nothing of what it opens.

Over https it is `__Host-satomori`: the browser itself holds it to TLS, to this host, and to no other path or domain.
"""

from starlette.responses import Response

from gateway.accounts.desk import Opened
from gateway.accounts.sessions import LASTS


def cookie_name(https: bool) -> str:
    """What it is called; without TLS (a test, a desk) a browser would refuse the right name."""
    return "__Host-satomori" if https else "satomori"


def set_cookie(answer: Response, opened: Opened, https: bool) -> None:
    """Gives the browser its session. Lax: a link in a mail opens the page, another site's form does not bring it."""
    answer.set_cookie(
        cookie_name(https), opened.cookie, max_age=LASTS[opened.how].most_us // 1_000_000, path="/", secure=https,
        httponly=True, samesite="lax",
    )  # fmt: skip


def take_cookie(answer: Response, https: bool) -> None:
    """Has the browser forget it."""
    answer.delete_cookie(cookie_name(https), path="/", secure=https, httponly=True, samesite="lax")
