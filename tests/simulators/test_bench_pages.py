"""The bench row of the pages measures what it says: a throttled browser before a real gateway, with and without script."""

from pathlib import Path

import pytest

from simulators.bench import pages
from tests.services import require_binary
from tests.web.conftest import built_pages

__all__ = ["built_pages"]

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("built_pages")]


def test_a_page_says_something_on_a_slow_phone_also_without_its_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_binary("chromium")
    monkeypatch.setattr(pages, "PAGES", ("/install",))
    first, own, bare = pages.measure(tmp_path / "bench", 1)
    assert first.value is not None
    assert own.value is not None
    assert bare.value is not None
    assert first.value > pages.SLOW_4G["latency"], "no page comes faster than one way there and back"
    assert own.value > first.value, "the HTML speaks before the script does"
    assert bare.value > pages.SLOW_4G["latency"]
    assert all(len(figure.values) == len(figure.peer_values) == 1 for figure in (first, own, bare))


def test_a_page_that_does_not_open_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_binary("chromium")
    monkeypatch.setattr(pages, "PAGES", ("/no-such-page",))
    with pytest.raises(RuntimeError, match="/no-such-page: 4"):
        pages.measure(tmp_path / "bench", 1)


def test_where_it_cannot_be_measured_it_says_what_is_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_chromium", lambda: None)
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        pages.measure(tmp_path / "bench", 1)
