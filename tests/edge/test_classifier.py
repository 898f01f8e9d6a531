"""Through the real onnxruntime, with models of a few hundred bytes that are built here."""

import asyncio
import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from edge.clock import SystemClock
from edge.errors import DeviceError
from edge.hardware.classifier import Classifier, ModelConfig, Verdict, judge_within, load_classifier
from tests.edge.tiny_model import tiny_model

ANIMAL, PERSON, VEHICLE, NOTHING, ENDLESS = (20, 250, 20), (250, 20, 20), (20, 20, 250), (20, 60, 20), (255, 0, 255)


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (128, 128), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(out, "JPEG")
    return out.getvalue()


def model(tmp_path: Path, **settings: Any) -> Classifier:
    form = {key: settings.pop(key) for key in ("form", "half", "scale", "side") if key in settings}
    return Classifier(ModelConfig(file=tiny_model(tmp_path / "tiny.onnx", **form), **settings))


def judged(classifier: Classifier, content: bytes) -> Verdict:
    return classifier.judge(content, classifier.look())


@pytest.mark.parametrize("form", [{}, {"form": "v8"}, {"half": True}, {"side": "side"}, {"form": "v8", "side": 96}])
def test_three_answers(tmp_path: Path, form: dict[str, Any]) -> None:
    classifier = model(tmp_path, **form)
    told = {name: judged(classifier, jpeg(colour)) for name, colour in
            (("animal", ANIMAL), ("person", PERSON), ("vehicle", VEHICLE), ("nothing", NOTHING))}  # fmt: skip
    assert {name: verdict.content for name, verdict in told.items()} == {
        "animal": "animal",
        "person": "person_or_vehicle",
        "vehicle": "person_or_vehicle",
        "nothing": "unsure",
    }
    assert told["animal"].confidence == pytest.approx(250 / 255, abs=0.02)
    assert told["nothing"].confidence == pytest.approx(60 / 255, abs=0.02)


def test_a_person_beside_an_animal_is_a_person(tmp_path: Path) -> None:
    assert judged(model(tmp_path), jpeg((80, 250, 20))).content == "person_or_vehicle"


def test_a_picture_keeps_its_shape_and_the_rest_is_grey(tmp_path: Path) -> None:
    wide = judged(model(tmp_path, person_score=0.9), jpeg(ANIMAL, (160, 80)))
    assert wide.confidence == pytest.approx((250 + 114) / 2 / 255, abs=0.02)


def test_what_is_not_named_by_the_classes_counts_for_nothing(tmp_path: Path) -> None:
    classifier = model(tmp_path, classes=("other", "animal", "person"))
    told = judged(classifier, jpeg(ANIMAL))
    assert told.content == "unsure"
    assert told.confidence == pytest.approx(250 / 255, abs=0.02)
    assert judged(classifier, jpeg(PERSON)).content == "animal"


def test_classes_without_a_person_promise_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="classes must name `animal` and `person`"):
        ModelConfig(file=tmp_path / "tiny.onnx", classes=("animal", "other"))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_other_jpegs_are_looked_at(tmp_path: Path, mode: str) -> None:
    assert judged(model(tmp_path), jpeg((200, 200, 200), mode=mode)).content == "person_or_vehicle"


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 no picture", jpeg(ANIMAL)[:200]])
def test_what_can_not_be_decoded_gets_no_verdict(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="it can't be decoded"):
        judged(model(tmp_path), content)


def test_a_picture_too_large_for_a_pi_gets_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.hardware.classifier.MAX_PIXELS", 100 * 100)
    with pytest.raises(ValueError, match="it has 128 x 128 pixels"):
        judged(model(tmp_path), jpeg(ANIMAL))


def test_scores_that_are_none_are_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its scores are not from 0 to 1"):
        judged(model(tmp_path, scale=7.0), jpeg(ANIMAL))


def test_a_model_of_another_form_is_refused_with_what_it_gives(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"gives \[1, 7\], not \[1, N, 8\] or \[1, 7, N\] for 3 classes"):
        model(tmp_path, form="flat")
    with pytest.raises(DeviceError, match=r"gives \[1, 2, 8\], not \[1, N, 7\]"):
        model(tmp_path, classes=("animal", "person"))


def test_a_file_that_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(DeviceError, match=r"model.file: .*x\.onnx can't be loaded: "):
        Classifier(ModelConfig(file=tmp_path / "x.onnx"))
    with pytest.raises(DeviceError, match=r"model.file: .*none\.onnx can't be loaded: "):
        Classifier(ModelConfig(file=tmp_path / "none.onnx"))


def test_without_onnxruntime_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match=r"pip install 'satomori\[classify\]', which needs a 64-bit system"):
        model(tmp_path)


def test_two_cameras_share_one_model(tmp_path: Path) -> None:
    config = ModelConfig(file=tiny_model(tmp_path / "tiny.onnx"))

    async def load() -> tuple[Classifier, Classifier]:
        return await asyncio.gather(load_classifier(config), load_classifier(config))

    one, other = asyncio.run(load())
    assert one is other


def test_a_look_that_takes_too_long_is_ended_and_the_next_one_goes(tmp_path: Path) -> None:
    classifier = model(tmp_path)

    async def play() -> None:
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"it took longer than 0\.2 s"):
            await judge_within(classifier, jpeg(ENDLESS), 0.2, SystemClock())
        verdict = await judge_within(classifier, jpeg(ANIMAL), 10, SystemClock())
        assert verdict.content == "animal"
        assert time.monotonic() - begun < 5

    asyncio.run(play())


# --- species ------------------------------------------------------------------------------------------

TWO_ANIMALS: dict[str, Any] = {"classes": ("animal", "person", "animal"), "species": {"2": "bear"}}
BEAR, BOTH, FAINT_BEAR = (20, 20, 250), (20, 250, 250), (20, 20, 60)


def test_a_model_that_tells_species_apart_names_those_that_have_a_name(tmp_path: Path) -> None:
    classifier = model(tmp_path, **TWO_ANIMALS)
    told = [judged(classifier, jpeg(colour)) for colour in (ANIMAL, BEAR, BOTH, FAINT_BEAR, NOTHING, (200, 20, 250))]
    assert [(one.content, one.species) for one in told] == [
        ("animal", None),
        ("animal", "bear"),
        ("animal", "bear"),  # of equal scores: what might be a bear is one
        ("unsure", "bear"),
        ("unsure", None),
        ("person_or_vehicle", None),
    ]


@pytest.mark.parametrize("species", [{"1": "bear"}, {"3": "bear"}, {"0": "Bear!"}, {"x": "bear"}])
def test_a_species_of_a_class_that_is_no_animal_is_refused(tmp_path: Path, species: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="species"):
        ModelConfig.model_validate({"file": tmp_path / "tiny.onnx", **TWO_ANIMALS, "species": species})
