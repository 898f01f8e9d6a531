"""The detection rule: one burst one event, recall first, a bear at once, the same again only counted, persons never."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deployments import Deployment, Deployments
from gateway.rules import Fact, Memory, Verdict
from gateway.rules.detection import Detection, DetectionConfig

S, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
T0 = 1_780_434_720 * S
CAM, OTHER = ("kitayama-04", "cam-02"), ("kitayama-05", "cam-07")
STANDS = Deployments(
    [
        Deployment(node=CAM[0], device=CAM[1], kind="camera", place="北尾根", label="東"),
        Deployment(node=OTHER[0], device=OTHER[1], kind="camera", place="北尾根", label="西"),
    ]
)


def sha(number: int) -> str:
    return f"{number:064x}"


class Told:
    """One place's cameras as people are told of them."""

    def __init__(self, **settings: Any) -> None:
        self.rule = Detection(DetectionConfig(type="detection", **settings), STANDS)
        self.memory: Memory = {}
        self.verdicts: list[Verdict] = []
        self._seq = 0

    def _hear(self, name: str, us: int, camera: tuple[str, str], body: dict[str, Any]) -> None:
        self._seq += 1
        fact = Fact(*camera, name, 0, T0 + us, T0 + us, False, f"e:{self._seq}", body=json.dumps(body))
        [subject] = self.rule.about(fact)
        assert subject == CAM, "the cameras of one place are one subject"
        self._take(self.rule.on_fact(self.memory, fact, T0 + us, subject))
        self.memory = json.loads(json.dumps(self.memory))

    def picture(self, number: int, us: int, content: str = "animal", *, camera: tuple[str, str] = CAM, withheld: bool = False,
                **more: Any) -> "Told":  # fmt: skip
        self._hear("media_captured", us, camera, {"media": sha(number), "content": content, "withheld": withheld, **more})
        return self

    def says(self, number: int, content: str, us: int, species: str | None = None) -> "Told":
        self._hear("picture_confirmed", us, CAM, {"media": sha(number), "content": content, "species": species})
        return self

    def wait(self, us: int) -> "Told":
        self._take(self.rule.on_tick(self.memory, T0 + us, T0 - HOUR, CAM))
        return self

    def _take(self, verdict: Verdict | None) -> None:
        if verdict is not None:
            self.verdicts.append(verdict)

    @property
    def pages(self) -> int:
        return len({one.opening for one in self.verdicts if one.level == "firing"})

    @property
    def last(self) -> Verdict:
        return self.verdicts[-1]


def test_a_burst_is_one_event_told_when_it_is_over() -> None:
    told = Told()
    for number in range(3):
        told.picture(number, number * S, species="boar", burst="b" * 16, confidence=0.5 + number / 10)
    assert told.pages == 0
    told.wait(5 * S).wait(12 * S)
    assert told.pages == 1
    assert dict(told.last.facts) == {
        "content": "animal", "species": "boar", "dangerous": False, "pictures": 3, "media_all": [sha(2), sha(1), sha(0)],
        "confirmed": False, "confidence": 0.7, "label": "東", "media": sha(2),
    }  # fmt: skip
    assert told.last.times == 1


def test_without_a_bursts_id_the_gap_makes_it_one() -> None:
    assert Told().picture(1, 0).picture(2, 6 * S).picture(3, 12 * S).wait(22 * S).pages == 1


def test_an_animal_that_does_not_go_is_told_within_a_minute() -> None:
    told = Told()
    for number in range(14):
        told.picture(number, number * 5 * S).wait(number * 5 * S)
    assert told.pages == 1


@pytest.mark.parametrize("content", ["animal", "unsure", "unclassified"])
def test_what_may_be_an_animal_is_told(content: str) -> None:
    told = Told().picture(1, 0, content).wait(10 * S)
    assert told.pages == 1
    assert told.last.facts["content"] == ("animal" if content == "animal" else "unsure")
    assert ("media" in told.last.facts) == (content == "animal"), "what nobody looked at is not shown"


def test_unclassified_pictures_can_be_ignored() -> None:
    assert Told(unclassified="ignore").picture(1, 0, "unclassified").wait(HOUR).verdicts == []


def test_persons_raise_nothing_and_close_their_burst_before_it_is_told() -> None:
    assert Told().picture(1, 0, "person_or_vehicle").wait(HOUR).verdicts == []
    told = Told().picture(1, 0, burst="b" * 16).picture(2, S, "person_or_vehicle", burst="b" * 16)
    told.picture(3, 2 * S, burst="b" * 16).wait(MINUTE)
    assert told.pages == 0


def test_a_person_found_after_it_was_told_ends_it_and_takes_its_picture_back() -> None:
    told = Told().picture(1, 0, burst="b" * 16).wait(10 * S).picture(1, 20 * S, "person_or_vehicle", burst="b" * 16)
    assert told.last.level == "ok"
    told = Told().picture(1, 0, burst="b" * 16).wait(10 * S).picture(2, MINUTE, burst="c" * 16)
    told.picture(2, 2 * MINUTE, "person_or_vehicle", burst="c" * 16)
    assert told.last.level == "firing"
    assert told.last.facts["media_all"] == [sha(1)]


def test_a_withheld_picture_is_never_named_as_one_to_show() -> None:
    assert "media" not in Told().picture(1, 0, withheld=True).wait(10 * S).last.facts


def test_a_bear_is_told_at_its_first_picture_as_critical() -> None:
    told = Told().picture(1, 0, species="bear", burst="b" * 16)
    assert (told.last.level, told.last.severity, told.last.facts["dangerous"]) == ("firing", "critical", True)
    assert told.picture(2, S, species="bear", burst="b" * 16).wait(MINUTE).pages == 1


def test_a_bear_in_an_unsure_picture_is_told_at_once_too() -> None:
    assert Told().picture(1, 0, "unsure", species="bear").last.level == "firing"


def test_a_bear_among_boars_is_another_thing_and_a_boar_after_a_bear_is_not() -> None:
    told = Told().picture(1, 0, species="boar").wait(10 * S).picture(2, MINUTE, species="bear")
    assert told.pages == 2
    assert told.last.severity == "critical"
    assert told.picture(3, 2 * MINUTE, species="boar").wait(3 * MINUTE).pages == 2
    assert told.last.facts["species"] == "bear"


def test_the_same_again_at_the_same_place_is_counted_and_not_told() -> None:
    told = Told().picture(1, 0, species="deer").wait(10 * S)
    for number in range(2, 12):
        told.picture(number, number * 10 * MINUTE, species="deer", camera=OTHER if number % 2 else CAM).wait(
            number * 10 * MINUTE + S
        )
    assert (told.pages, told.last.times) == (1, 11)


def test_after_a_quiet_time_it_is_over_and_the_same_is_news_again() -> None:
    told = Told().picture(1, 0, species="deer").wait(10 * S).wait(29 * MINUTE)
    assert told.last.level == "firing"
    assert told.wait(30 * MINUTE).last.level == "ok"
    assert told.picture(2, HOUR, species="deer").wait(HOUR + 10 * S).pages == 2


def test_a_bear_that_stays_is_told_each_quiet_time_again() -> None:
    told = Told()
    for minute in range(0, 61, 5):
        told.picture(minute, minute * MINUTE, species="bear").wait(minute * MINUTE + S)
    assert told.pages == 3


def test_species_that_take_turns_are_each_told_once() -> None:
    told = Told()
    for number in range(12):
        told.picture(number, number * 2 * MINUTE, species="deer" if number % 2 else "boar").wait(number * 2 * MINUTE + 15 * S)
    assert told.pages == 2


def test_a_name_is_news_to_an_unsure_picture_but_not_the_other_way_round() -> None:
    told = Told().picture(1, 0, "unsure").wait(10 * S).picture(2, MINUTE, species="boar").wait(2 * MINUTE)
    assert told.pages == 2
    assert told.picture(3, 3 * MINUTE, "unsure").wait(4 * MINUTE).pages == 2


def test_a_person_who_sees_no_animal_ends_it_and_the_next_one_is_news() -> None:
    told = Told().picture(1, 0, species="boar").wait(10 * S).says(1, "no_animal", MINUTE)
    assert told.last.level == "ok"
    assert told.picture(1, 2 * MINUTE, species="boar").wait(3 * MINUTE).pages == 1, "the same picture again is not"
    assert told.picture(2, 4 * MINUTE, species="boar").wait(5 * MINUTE).pages == 2


def test_a_person_who_sees_a_bear_raises_it_once() -> None:
    told = Told().picture(1, 0, "unsure").picture(2, S, "unsure").wait(11 * S).says(1, "animal", MINUTE, "bear")
    assert (told.last.severity, told.last.facts["confirmed"], told.pages) == ("critical", True, 2)
    assert "media" not in told.last.facts, "that it is a bear does not say that nobody is in the picture"
    assert told.says(2, "animal", MINUTE, "bear").says(1, "animal", 2 * MINUTE, "bear").pages == 2


def test_a_person_who_sees_an_animal_confirms_it_and_wakes_nobody() -> None:
    told = Told().picture(1, 0, "unsure").wait(10 * S).says(1, "animal", MINUTE)
    assert (told.last.facts["confirmed"], told.pages) == (True, 1)


BODIES = st.fixed_dictionaries(
    {"media": st.integers(0, 8).map(sha), "content": st.sampled_from(["animal", "unsure", "unclassified", "person_or_vehicle"])},
    optional={"species": st.sampled_from(["bear", "boar", None]), "burst": st.sampled_from(["b" * 16, "c" * 16]),
              "withheld": st.booleans(), "confidence": st.floats(0, 1)},
)  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 7200), BODIES, st.sampled_from(["picture", "wait", "animal", "no_animal"])), max_size=30)
)
def test_whatever_comes_no_picture_with_a_person_is_named(story: list[tuple[int, dict[str, Any], str]]) -> None:
    told = Told()
    for at_s, body, what in story:
        before = len(told.verdicts)
        if what == "wait":
            told.wait(at_s * S)
        elif what == "picture":
            told._hear("media_captured", at_s * S, CAM, body)
        else:
            told._hear(
                "picture_confirmed", at_s * S, CAM, {"media": body["media"], "content": what, "species": body.get("species")}
            )
        for one in told.verdicts[before:]:
            if what == "picture" and body["content"] == "person_or_vehicle":
                assert body["media"] not in one.facts.get("media_all", ())
            assert one.level != "pending" or not one.facts["dangerous"]
    assert len(json.dumps(told.memory)) < 10_000
