"""Whatever happens in whatever order, however often the gateway dies in between: nobody is told twice, nobody is forgotten."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from gateway.state import tables
from tests.gateway.paged import HOUR_US, MINUTE_US, NOW_US, PEOPLE, TRAP, Paged

ROUTE = {**TRAP, "group_by": ["rule"], "group_interval": "2m"}
WHO = [name for names in PEOPLE.values() for name in names]
STEP = st.one_of(
    st.tuples(st.just("later"), st.sampled_from([1, 3, 10, 25, 65])),
    st.tuples(st.just("answer"), st.sampled_from(WHO), st.sampled_from(["going", "cannot", "seen", "done"])),
    st.tuples(st.just("fire"), st.sampled_from(["trap-1", "trap-2"])),
    st.tuples(st.sampled_from(["mute", "unmute", "over"]), st.just(0)),
    st.tuples(st.sampled_from(["lost", "found", "dead", "sent"]), st.sampled_from(WHO)),
)


class KilledError(BaseException):
    """The process ends here."""


class Mortal:
    """A state database whose gateway dies just before it commits, as often as it is told to."""

    def __init__(self, real: Any) -> None:
        self._real, self.deaths = real, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._real.write() as connection:
            yield connection
            if self.deaths:
                self.deaths -= 1
                raise KilledError


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    Paged(folder, ROUTE).state.close()
    return folder


class Story:
    """The same steps on a copy of the town; `dies`: before each commit the gateway is killed once and starts anew."""

    def __init__(self, town: Path, folder: Path, *, dies: bool) -> None:
        shutil.copy(town / "state.db", folder / "state.db")
        self.paged, self.dies = Paged.__new__(Paged), dies
        self.paged.begin(folder, [ROUTE])
        self.alerts: list[Any] = []

    def do(self, act: Any) -> None:
        """One transaction, repeated after a death until it stands."""
        if self.dies:
            mortal = Mortal(self.paged.state)
            mortal.deaths = 1
            self.paged.state = self.paged.paging._state = mortal  # type: ignore[assignment]
            openings = self.paged._openings
            try:
                act()
            except KilledError:
                self.paged._openings = openings
                self.paged.state = mortal._real
                self.paged.restart()
            else:  # it wrote nothing
                self.paged.state = self.paged.paging._state = mortal._real
                return
        act()

    def later(self, us: int) -> None:
        until_us = self.paged.now_us + us
        while True:
            due = [row["due_us"] for row in self.open_pages() if row["due_us"] is not None]
            self.paged.now_us = max(min([at for at in due if at <= until_us], default=until_us), self.paged.now_us)
            self.do(self.paged.tick)
            if self.paged.now_us == until_us:
                return
            self.check()

    def open_pages(self) -> list[dict[str, Any]]:
        return [row for row in self.paged.rows(tables.pages) if row["state"] != "closed"]

    def step(self, step: tuple[Any, ...]) -> None:
        paged = self.paged
        match step:
            case ("later", minutes):
                self.later(minutes * MINUTE_US)
            case ("answer", who, answer):
                if self.open_pages():
                    self.do(lambda: paged.answer(who, answer, self.open_pages()[0]["id"]))
            case ("fire", device):
                if not any(alert.device == device for alert in self.alerts):
                    self.do(lambda: self.fire(device))
            case ("mute", _):
                self.move("firing", "suppressed", suppressed_by="silence:1")
            case ("unmute", _):
                self.move("suppressed", "firing", suppressed_by=None)
            case ("over", _):
                self.move(None, "resolved")
                self.alerts = []
            case ("lost", who):
                self.do(lambda: paged.reachable(who))
            case ("found", who):
                self.do(lambda: paged.reachable(who, yes=True))
            case (state, _):
                self.do(lambda: paged.sent(state))

    def fire(self, device: str) -> None:
        alert = self.paged.fire(device)
        self.alerts.append(alert)

    def move(self, before: str | None, after: Any, **more: Any) -> None:
        for alert in self.alerts:
            if before is None or self.paged.alert(alert).state == before:
                self.do(lambda alert=alert: self.paged.becomes(alert, after, **more))

    def check(self) -> None:
        """An open critical page that may speak is asking somebody, or will look again at a time."""
        states = {row["id"]: row["state"] for row in self.paged.rows(tables.alerts)}
        for page in self.open_pages():
            mine = [states[row["alert"]] for row in self.paged.rows(tables.page_alerts) if row["page"] == page["id"]]
            if set(mine) & {"firing", "acknowledged"} and not page["changed"]:
                assert page["due_us"] is not None, page

    def told(self) -> list[tuple[str, str, str, int]]:
        return [(row["id"], row["contact"], row["kind"], row["created_us"]) for row in self.paged.ledger()]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(STEP, max_size=12))
def test_dying_before_every_commit_changes_nothing_and_it_ends_with_people(town: Path, steps: list[tuple[Any, ...]]) -> None:
    told = []
    for dies in (False, True):
        with TemporaryDirectory() as folder:
            story = Story(town, Path(folder), dies=dies)
            for step in [("fire", "trap-1"), *steps]:
                story.step(step)
                story.do(story.paged.tick)
                story.check()
            told.append(story.told())
            if not dies:
                ends(story)
            story.paged.state.close()
    assert sorted(told[0]) == sorted(told[1])


def ends(story: Story) -> None:
    """Time passes and nobody says anything any more: enough went and nothing is open, or the office has it."""
    story.step(("unmute", 0))
    story.paged.reachable("yakuba", yes=True)
    for _ in range(4):
        story.later(HOUR_US)
    kinds = {(row["page"], row["contact"], row["kind"]) for row in story.paged.ledger()}
    for page in story.open_pages():
        assert page["state"] == "exhausted", page["state"]
        assert (page["id"], "yakuba", "office") in kinds
    assert story.paged.now_us > NOW_US
