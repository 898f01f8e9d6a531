"""How a story's lines are compared, how its times are read, and what a mistake in its script says."""

from pathlib import Path
from typing import Any

import pytest

from simulators.scenario import ScenarioError, Story, as_expected, told

PHONE: dict[str, Any] = {
    "at": "06-04 02:10:01",
    "what": "phone",
    "to": "田中",
    "channel": "line",
    "title": "クマ",
    "body": "本文",
}


def wanted(**changed: Any) -> dict[str, Any]:
    return {name: value for name, value in (PHONE | changed).items() if value is not None}


def test_a_line_says_when_or_between_when() -> None:
    assert as_expected(PHONE, wanted())
    assert not as_expected(PHONE, wanted(at="06-04 02:10:02"))
    assert as_expected(PHONE, wanted(at=None, between=["06-04 02:10:00", "06-04 02:10:05"]))
    assert not as_expected(PHONE, wanted(at=None, between=["06-04 02:10:02", "06-04 02:10:05"]))


def test_a_message_may_leave_its_body_open_and_nothing_else() -> None:
    assert as_expected(PHONE, wanted(body=None))
    assert not as_expected(PHONE, wanted(body="anders"))
    assert not as_expected(PHONE, wanted(title=None))
    assert not as_expected(PHONE, wanted(to="佐藤"))


def story(folder: Path, text: str) -> Story:
    (folder / "scenario.toml").write_text(text, encoding="utf-8")
    return Story(folder, folder)


@pytest.mark.parametrize(
    ("at", "after_s"),
    [("90s", 90), ("05:30", 1800), ("05:30:10", 1810), ("06-04 05:00", 86_400)],
)
def test_steps_are_at_a_time_of_the_clock_or_so_long_after_the_start(tmp_path: Path, at: str, after_s: int) -> None:
    one = story(tmp_path, 'person = [{ name = "田中" }]\nstep = []\n')
    assert one._time_of(at) - one.start_us == after_s * 1_000_000


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ('{ at = "1s", do = "fly" }', "do = 'fly' is no step"),
        ('{ at = "1s", do = "tap", person = "田中" }', "missing a required argument: 'button'"),
        ('{ at = "1s", do = "tap", person = "田中", button = "行きます" }', "田中 has no button '行きます'"),
        ('{ at = "1s", do = "open_link", person = "田中", answer = "going" }', "田中 has no link to answer by"),
        ('{ at = "1s", do = "channel_down", channel = "pigeon" }', "there are line, mail, twilio"),
    ],
)
def test_a_mistake_in_a_step_is_named(tmp_path: Path, step: str, says: str) -> None:
    (tmp_path / "scenario.toml").write_text(
        f'person = [{{ name = "田中", group = "office" }}]\nroute = [{{ to = "office" }}]\nstep = [{step}]\n', encoding="utf-8"
    )
    with pytest.raises(ScenarioError, match=says.replace("[", r"\[")):
        told(tmp_path, tmp_path)


def test_an_unknown_setting_of_a_person_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="person: shoes is unknown"):
        story(tmp_path, 'person = [{ name = "田中", shoes = 2 }]\nstep = []\n')
