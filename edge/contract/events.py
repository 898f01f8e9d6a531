"""The table of events: every type, its class and its fields. A new event is a new model here and a place in `EVENTS`.

The class decides what goes first over a thin link and what a full outbox may drop (from the last, never from the first).
"""

from enum import IntEnum
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from edge.contract.names import Hex16, Name, Sha256

MAX_SEQ = 2**53 - 1
MAX_DT_US = 2**53 - 1

Seq = Annotated[int, Field(strict=True, ge=1, le=MAX_SEQ)]
"""Number of a record in its node's epoch, from 1, never used twice."""

DtUs = Annotated[int, Field(strict=True, ge=-MAX_DT_US, le=MAX_DT_US)]
"""Time of a record as an offset from its batch's `t0`, in µs."""

Count = Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)]


class RecordClass(IntEnum):
    """What a record is worth: the smaller, the dearer. On the wire by its lower-case name."""

    ALARM = 0
    EVIDENCE = 1
    SIGHTING = 2
    READING = 3


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: ClassVar[RecordClass]
    seq: Seq = 1  # given by the outbox
    dt: DtUs = 0
    device: Name


class TrapSprung(_Event):
    """The trap's switch went to sprung and stayed there for the debounce time."""

    rank = RecordClass.ALARM
    type: Literal["trap_sprung"] = "trap_sprung"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    folded: Count = Field(0, description="Further changes of a chattering switch that this event stands for.")
    found: StrictBool = Field(False, description="The state was found so when the agent started; when it changed is not known.")


class TrapReset(_Event):
    """The trap's switch went back to set and stayed there for the debounce time."""

    rank = RecordClass.ALARM
    type: Literal["trap_reset"] = "trap_reset"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    folded: Count = Field(0, description="Further changes of a chattering switch that this event stands for.")
    found: StrictBool = Field(False, description="The state was found so when the agent started; when it changed is not known.")


class TrapMoved(_Event):
    """The trap was shaken or tilted without its switch saying sprung: perhaps an animal outside, perhaps a failed catch."""

    rank = RecordClass.ALARM
    type: Literal["trap_moved"] = "trap_moved"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    how: Literal["vibration", "tilt"] = Field(description="Which input felt it: `vibration` or `tilt`.")
    folded: Count = Field(0, description="Further movements that this event stands for.")


class TrapVisited(_Event):
    """Somebody pressed the trap's visit button: a person stands there. No sensor says this."""

    rank = RecordClass.ALARM
    type: Literal["trap_visited"] = "trap_visited"
    class_: Literal["alarm"] = Field("alarm", alias="class")


class AlarmTest(_Event):
    """A test that goes the whole way of an alarm: an installer's test trip, or the daily canary. It asks nobody to set out."""

    rank = RecordClass.ALARM
    type: Literal["test_alarm"] = "test_alarm"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    token: Hex16 = Field(description="What the answer is recognized by; who sends the test chooses it.")


class TamperOpened(_Event):
    """The tamper loop of a device was cut or its lid opened."""

    rank = RecordClass.ALARM
    type: Literal["tamper_opened"] = "tamper_opened"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    folded: Count = Field(0, description="Further changes that this event stands for.")
    found: StrictBool = Field(False, description="The loop was found so when the agent started; when it changed is not known.")


class TamperClosed(_Event):
    """The tamper loop is whole again."""

    rank = RecordClass.ALARM
    type: Literal["tamper_closed"] = "tamper_closed"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    folded: Count = Field(0, description="Further changes that this event stands for.")
    found: StrictBool = Field(False, description="The loop was found so when the agent started; when it changed is not known.")


Content = Literal["unclassified", "animal", "person_or_vehicle", "unsure"]
"""What a picture shows, as far as the node can tell. `unclassified`: nothing looked at it, so nobody may guess."""


class MediaCaptured(_Event):
    """A camera wrote a picture or a video; the bytes travel by HTTP under the same SHA-256, unless they are withheld."""

    rank = RecordClass.EVIDENCE
    type: Literal["media_captured"] = "media_captured"
    class_: Literal["evidence"] = Field("evidence", alias="class")
    media: Sha256 = Field(description="SHA-256 of the file, its name everywhere.")
    size: Count = Field(description="Length of the file in bytes.")
    content_type: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9.+/-]{3,64}$")]
    camera_time: Annotated[str, StringConstraints(strict=True, max_length=32)] | None = Field(
        None, description="EXIF DateTimeOriginal as the camera wrote it, ISO 8601 without zone; its clock may be wrong."
    )
    camera_offset_s: Annotated[int, Field(strict=True, ge=-MAX_SEQ, le=MAX_SEQ)] | None = Field(
        None, description="Estimated camera clock minus node clock, with the node's zone; absent where it can't be told."
    )
    burst: Hex16 | None = Field(None, description="The pictures of one burst share this; absent where there is none.")
    content: Content = Field(
        "unclassified",
        description="`unclassified`, `animal`, `person_or_vehicle` or `unsure`: what the node's model says, if it has one.",
    )
    confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The model's own score of `content`, 0 to 1; absent without a model."
    )
    species: Name | None = Field(None, description="What animal the model takes it for, e.g. `bear`; absent where it can't say.")
    withheld: StrictBool = Field(False, description="The file stays on the node, because a person may be in it.")


Tag = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9:-]{1,80}$")]
"""What a tag says it is; never a person, never a MAC."""


class _Sighting(_Event):
    rank = RecordClass.SIGHTING
    class_: Literal["sighting"] = Field("sighting", alias="class")
    tag: Tag = Field(description="What the tag says it is, e.g. `ibeacon:<uuid>:<major>:<minor>`; never a person, never a MAC.")
    rssi: Annotated[int, Field(strict=True, ge=-127, le=20)] = Field(description="Strongest signal, dBm.")


class TagEntered(_Sighting):
    """A tag came within reach of the receiver."""

    type: Literal["tag_entered"] = "tag_entered"


class TagSeen(_Sighting):
    """A tag stayed within reach: one summary per tag and interval."""

    type: Literal["tag_seen"] = "tag_seen"
    frames: Count = Field(description="Advertisements heard since the last summary.")


class TagLeft(_Sighting):
    """A tag was not heard for the leave time; `dt` is when it was heard last."""

    type: Literal["tag_left"] = "tag_left"


class ButtonPressed(_Event):
    """Somebody pressed the button of a tag: a call for help, or a sign of life, as the town has agreed."""

    rank = RecordClass.ALARM
    type: Literal["button_pressed"] = "button_pressed"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    tag: Tag
    press: Literal[
        "press", "double_press", "triple_press", "long_press", "long_double_press", "long_triple_press", "hold_press"
    ] = Field(description="How it was pressed, in the words of BTHome v2.")
    rssi: Annotated[int, Field(strict=True, ge=-127, le=20)] = Field(description="Signal, dBm.")


class TagBattery(_Event):
    """What a tag says of its own battery: said when it is first heard, when it changed noticeably, and once a day."""

    rank = RecordClass.SIGHTING
    type: Literal["tag_battery"] = "tag_battery"
    class_: Literal["sighting"] = Field("sighting", alias="class")
    tag: Tag
    voltage: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="V, where the tag says it.")
    level: Annotated[int, Field(strict=True, ge=0, le=100)] | None = Field(None, description="Percent, where the tag says it.")


class ClockSynced(_Event):
    """The node's clock became right: from now on this boot's monotonic time can be turned into UTC.

    An alarm in class, so that it travels before the records that it gives their time.
    """

    rank = RecordClass.ALARM
    type: Literal["clock_synced"] = "clock_synced"
    class_: Literal["alarm"] = Field("alarm", alias="class")
    boot: Hex16 = Field(description="The boot whose time this gives.")
    zero: Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)] = Field(description="UTC of this boot's monotonic 0, in µs.")
    stepped: Annotated[int, Field(strict=True, ge=-MAX_SEQ, le=MAX_SEQ)] = Field(
        description="How far the clock moved when it was set, in µs; positive: it had been behind."
    )


class DeviceDown(_Event):
    """A device could not be read any more; said once."""

    rank = RecordClass.EVIDENCE
    type: Literal["device_down"] = "device_down"
    class_: Literal["evidence"] = Field("evidence", alias="class")
    reason: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=300)]


class DeviceUp(_Event):
    """A device that was down can be read again; said once."""

    rank = RecordClass.EVIDENCE
    type: Literal["device_up"] = "device_up"
    class_: Literal["evidence"] = Field("evidence", alias="class")


AnyEvent = (
    TrapSprung
    | TrapReset
    | TrapMoved
    | TrapVisited
    | AlarmTest
    | TamperOpened
    | TamperClosed
    | ButtonPressed
    | ClockSynced
    | MediaCaptured
    | DeviceDown
    | DeviceUp
    | TagEntered
    | TagSeen
    | TagLeft
    | TagBattery
)
Event = Annotated[AnyEvent, Field(discriminator="type")]

EVENTS: dict[str, type[AnyEvent]] = {model.model_fields["type"].default: model for model in get_args(AnyEvent)}
