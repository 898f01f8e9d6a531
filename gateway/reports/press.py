"""A page as a PDF. One at a time, in a thread of its own; what the page names is fetched from nowhere but what came with it.

Needs the extra `reports` and Pango of the system; without them the rest of the gateway goes on.
"""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BASE = "press:///"
"""Before what a page names by its path."""
WITHIN_S = 60.0
MOST_WAITING = 3
LARGEST_PAGE_BYTES = 256 * 1024
LARGEST_PICTURES_BYTES = 64 * 1024 * 1024


class NoPress(Exception):
    """This gateway can't make PDFs; the text says what is missing."""


class PressBusy(Exception):
    """Others are being made, or this one takes too long. Later."""


class Press:
    """Makes PDFs. Any thread may ask, and waits."""

    def __init__(self, within_s: float = WITHIN_S) -> None:
        self._within_s = within_s
        self._thread = ThreadPoolExecutor(1, "press")
        self._room = threading.BoundedSemaphore(MOST_WAITING)

    def pdf(self, page: str, pictures: Mapping[str, tuple[bytes, str]] | None = None) -> bytes:
        """The PDF of this HTML. `pictures`: by their path in it, bytes and type. NoPress; PressBusy; ValueError: too large."""
        size = sum(len(content) for content, _ in (pictures or {}).values())
        if len(page) > LARGEST_PAGE_BYTES or size > LARGEST_PICTURES_BYTES:
            raise ValueError(f"a page of {len(page)} characters with {size} bytes of pictures is too large for a PDF")
        if not self._room.acquire(blocking=False):
            raise PressBusy
        made = self._thread.submit(_make, page, dict(pictures or {}))
        made.add_done_callback(lambda _: self._room.release())
        try:
            return made.result(self._within_s)
        except TimeoutError as error:
            made.cancel()
            raise PressBusy from error


def _make(page: str, pictures: Mapping[str, tuple[bytes, str]]) -> bytes:
    try:
        # Here, because it loads libraries of the system, which not every gateway has.
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher, URLFetcherResponse
    except (ImportError, OSError) as error:
        raise NoPress(f"{error}. Install the extra `reports`, and libpango-1.0-0 and libpangoft2-1.0-0 of the system") from error

    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of each rule of style that only screens know

    class Own(URLFetcher):  # type: ignore[misc]  # the library has no types
        """Gives what came with the page, and asks nobody."""

        def fetch(self, url: str, headers: Any = None) -> Any:  # noqa: ARG002 - the library's
            """As the library's; ValueError, which it takes for a picture that can't be shown."""
            found = pictures.get(url.removeprefix(BASE.removesuffix("/")))
            if found is None:
                raise ValueError("nothing is fetched for a PDF")
            return URLFetcherResponse(url, found[0], {"Content-Type": found[1]})

    made: bytes = HTML(string=page, base_url=BASE, url_fetcher=Own()).write_pdf(optimize_images=True, dpi=150, jpeg_quality=80)
    return made
