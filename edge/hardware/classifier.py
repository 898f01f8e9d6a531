"""What a picture shows, by a MegaDetector-class ONNX model that the operator supplies. onnxruntime, numpy and Pillow stay here.

The models understood are YOLO-style detectors, exported without their own non-maximum suppression:

    input    one tensor, float or float16, [1, 3, side, side]: RGB, 0 to 1, the picture scaled to fit, the rest grey 114/255
    output   the first one, either [1, N, 5 + classes] (YOLOv5, MegaDetector v5: x, y, w, h, objectness, a score a class)
             or [1, 4 + classes, N] (YOLOv8 and later: x, y, w, h, a score a class)

Boxes are not looked at, so overlapping ones do no harm: a picture is worth its best score of each class. Sources: the model cards
of MegaDetector (classes 1 animal, 2 person, 3 vehicle; in the network's output 0, 1, 2), Ultralytics' export documentation.
"""

import asyncio
import io
import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edge.clock import Clock
from edge.contract.events import Content
from edge.contract.names import Name
from edge.errors import DeviceError

log = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
"""A larger picture is no trail camera's, and would not fit a Pi's memory."""

_GREY = 114


class ModelConfig(BaseModel):
    """`model = { file = "..." }`: pictures are looked at on the node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[Path, Field(description="The ONNX model. None comes with satomori.")]
    classes: Annotated[
        tuple[Literal["animal", "person", "vehicle", "other"], ...],
        Field(min_length=1, max_length=1000, description="What the model's classes are, in its order."),
    ] = ("animal", "person", "vehicle")
    side: Annotated[
        int, Field(ge=32, le=2048, multiple_of=32, description="Side of its input in pixels, where the file leaves it open.")
    ] = 640
    species: Annotated[
        tuple[tuple[Annotated[int, Field(ge=0, lt=1000)], Name], ...],
        BeforeValidator(
            lambda table: tuple(table.items()) if isinstance(table, dict) else table
        ),  # a model's settings are hashed
        Field(description='Which species its `animal` classes are, by the class\'s number from 0: `{3 = "bear"}`.'),
    ] = ()
    animal_score: Annotated[float, Field(gt=0, le=1, description="From this score on it is an animal.")] = 0.4
    person_score: Annotated[
        float, Field(gt=0, le=1, description="From this score on it is a person or vehicle, whatever else is in the picture.")
    ] = 0.15
    timeout_s: Annotated[
        float, Field(ge=1, le=600, description="How long an event waits for the verdict; then it is `unclassified`.")
    ] = 30
    threads: Annotated[int, Field(ge=1, le=8, description="How many processor cores it may use.")] = 2
    upload_persons: Annotated[bool, Field(description="Whether pictures with a person or vehicle leave the node.")] = False
    withheld_days: Annotated[int, Field(ge=1, le=3650, description="How long a withheld picture stays on the node.")] = 30
    withheld_mib: Annotated[
        int, Field(ge=1, le=100_000, description="How much room withheld pictures may take; the oldest go first.")
    ] = 512

    @model_validator(mode="after")
    def _one_can_be_told(self) -> Self:
        if not {"person", "animal"} <= set(self.classes):
            raise ValueError("classes must name `animal` and `person`: with other models nothing can be promised")
        for number, _ in self.species:
            if number >= len(self.classes) or self.classes[number] != "animal":
                raise ValueError(f"species: class {number} is no `animal` of classes; they are counted from 0")
        return self


class Verdict(NamedTuple):
    """What a model says of one picture."""

    content: Content
    confidence: float | None
    species: str | None = None


UNCLASSIFIED = Verdict("unclassified", None)


class Classifier:
    """One loaded model. `judge` blocks for as long as the model takes; only one picture is looked at at a time."""

    def __init__(self, config: ModelConfig) -> None:
        """Loads the model and tries it on an empty picture, which takes seconds. DeviceError with what to do."""
        try:
            import numpy as np
            import onnxruntime  # type: ignore[import-untyped,unused-ignore]
            from PIL import Image
        except ImportError as error:
            raise DeviceError(
                f"model: {error.name or error} is missing: pip install 'satomori[classify]', which needs a 64-bit system. "
                "Without `model` pictures are sent as unclassified."
            ) from error
        self._numpy: Any = np
        self._image: Any = Image
        self._runtime: Any = onnxruntime
        self._config = config
        self._lock = threading.Lock()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = config.threads, 1
        options.enable_cpu_mem_arena = False  # a Pi's memory is needed by others between two pictures
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(config.file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes have no common parent but Exception
            raise DeviceError(f"model.file: {config.file} can't be loaded: {_first_line(error)}", named=config.file) from error
        [taken, *more] = self._session.get_inputs()
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        shape = list(taken.shape)
        if more or taken.type not in types or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
            raise self._strange(f"takes {taken.type} {shape}, not one picture of [1, 3, side, side]")
        sides = {side for side in shape[2:] if isinstance(side, int)}
        if len(sides) > 1:
            raise self._strange(f"takes pictures of {shape[3]} x {shape[2]}, which are not square")
        self._name, self._type = taken.name, types[taken.type]
        self._side = sides.pop() if sides else config.side
        try:
            self._best(np.zeros((1, 3, self._side, self._side), self._type), self.look())
        except ValueError as error:
            raise self._strange(str(error)) from error
        except Exception as error:
            raise DeviceError(
                f"model.file: {config.file} fails on an empty picture: {_first_line(error)}", named=config.file
            ) from error

    def look(self) -> Any:
        """A look at one picture, for `judge`: set its `terminate`, from any thread, to end it."""
        return self._runtime.RunOptions()

    def judge(self, content: bytes, look: Any) -> Verdict:
        """The verdict on a JPEG. ValueError when it can't be given: no picture, or no scores; RuntimeError when it was ended."""
        tensor = self._tensor(content)
        with self._lock:
            best = self._best(tensor, look)
        config = self._config
        of_kind = dict.fromkeys(config.classes, 0.0)
        for kind, score in zip(config.classes, best, strict=True):
            of_kind[kind] = max(of_kind[kind], score)
        person = max(of_kind["person"], of_kind.get("vehicle", 0.0))
        if person >= config.person_score:
            return Verdict("person_or_vehicle", person)
        # Of equal scores the named one: a bear that might be a boar is a bear.
        named = dict(config.species)
        animals = [number for number, kind in enumerate(config.classes) if kind == "animal"]
        species = named.get(max(animals, key=lambda number: (best[number], number in named)))
        if of_kind["animal"] >= config.animal_score:
            return Verdict("animal", of_kind["animal"], species)
        highest = max(best)
        return Verdict("unsure", highest, species if 0 < of_kind["animal"] == highest else None)

    def _tensor(self, content: bytes) -> Any:
        numpy, image_of, side = self._numpy, self._image, self._side
        try:
            with image_of.open(io.BytesIO(content), formats=["JPEG"]) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"it has {opened.width} x {opened.height} pixels")
                opened.draft("RGB", (side, side))  # decoded at an eighth of its size, where that is enough
                picture = opened.convert("RGB")
        except (OSError, SyntaxError, image_of.DecompressionBombError) as error:
            raise ValueError(f"it can't be decoded: {_first_line(error)}") from error
        scale = min(side / picture.width, side / picture.height)
        width, height = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
        fitted = image_of.new("RGB", (side, side), (_GREY, _GREY, _GREY))
        fitted.paste(picture.resize((width, height), image_of.Resampling.BILINEAR), ((side - width) // 2, (side - height) // 2))
        pixels = numpy.asarray(fitted, dtype=numpy.float32) / 255
        return numpy.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(self._type)

    def _best(self, tensor: Any, look: Any) -> list[float]:
        """The best score of each class. ValueError when the model's output is none that is understood."""
        if look.terminate:
            raise RuntimeError("the look was ended before it began")
        try:
            scores = self._scores(self._session.run(None, {self._name: tensor}, look)[0])
        except Exception as error:
            if look.terminate:
                raise RuntimeError("the look was ended") from error
            raise
        best = [0.0] * len(self._config.classes)
        if len(scores):
            if not bool(((scores >= 0) & (scores <= 1.001)).all()):  # not a number is neither
                raise ValueError("its scores are not from 0 to 1")
            best = [min(float(score), 1.0) for score in scores.max(axis=0).tolist()]
        return best

    def _scores(self, output: Any) -> Any:
        """[N, classes] of either form of output."""
        numpy, classes = self._numpy, len(self._config.classes)
        shape: tuple[int, ...] = getattr(output, "shape", ())
        if len(shape) == 3 and shape[0] == 1 and shape[2] == 5 + classes:
            rows = numpy.asarray(output[0], dtype=numpy.float32)
            return rows[:, 4:5] * rows[:, 5:]
        if len(shape) == 3 and shape[0] == 1 and shape[1] == 4 + classes:
            return numpy.asarray(output[0], dtype=numpy.float32)[4:].T
        raise ValueError(f"gives {list(shape)}, not [1, N, {5 + classes}] or [1, {4 + classes}, N] for {classes} classes")

    def _strange(self, what: str) -> DeviceError:
        return DeviceError(f"model.file: {self._config.file} {what}; see edge/README.md for the models that are understood")


_loading = threading.Lock()


@lru_cache(maxsize=2)
def _loaded(config: ModelConfig) -> Classifier:
    return Classifier(config)


async def load_classifier(config: ModelConfig) -> Classifier:
    """The model, loaded in a thread; cameras with the same settings share one. DeviceError when it can't be used."""

    def load() -> Classifier:
        with _loading:
            return _loaded(config)

    return await asyncio.to_thread(load)


async def judge_within(classifier: Classifier, content: bytes, seconds: float, clock: Clock) -> Verdict:
    """The verdict, in a thread, so that others go on; TimeoutError when it takes longer, and the look is ended then.

    ValueError when there can't be one.
    """
    look = classifier.look()
    looking = asyncio.ensure_future(asyncio.to_thread(classifier.judge, content, look))
    waiting = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((looking, waiting), return_when=asyncio.FIRST_COMPLETED)
        if looking.done():
            return looking.result()
        raise TimeoutError(f"it took longer than {seconds:g} s")
    finally:
        waiting.cancel()
        if not looking.done():
            looking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            look.terminate = True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
