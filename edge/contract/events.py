"""The table of events: every type, its class and its fields. A new event is a new model here and a place in `EVENTS`.

The class decides what goes first over a thin link and what a full outbox may drop (from the last, never from the first).
"""

from enum import IntEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from edge.contract.names import Name, Sha256

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


class MediaCaptured(_Event):
    """A trail camera wrote a picture; the bytes travel by HTTP under the same SHA-256."""

    rank = RecordClass.EVIDENCE
    type: Literal["media_captured"] = "media_captured"
    class_: Literal["evidence"] = Field("evidence", alias="class")
    media: Sha256 = Field(description="SHA-256 of the file, its name everywhere.")
    size: Count = Field(description="Length of the file in bytes.")
    content_type: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9.+/-]{3,64}$")]
    camera_time: Annotated[str, StringConstraints(strict=True, max_length=32)] | None = Field(
        None, description="EXIF DateTimeOriginal as the camera wrote it, ISO 8601 without zone; its clock may be wrong."
    )


class _Sighting(_Event):
    rank = RecordClass.SIGHTING
    class_: Literal["sighting"] = Field("sighting", alias="class")
    tag: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9:-]{1,80}$")] = Field(
        description="What the tag says it is, e.g. `ibeacon:<uuid>:<major>:<minor>`; never a person, never a MAC."
    )
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


AnyEvent = TrapSprung | TrapReset | MediaCaptured | TagEntered | TagSeen | TagLeft | DeviceDown | DeviceUp
Event = Annotated[AnyEvent, Field(discriminator="type")]

EVENTS: dict[str, type[AnyEvent]] = {
    model.model_fields["type"].default: model
    for model in (TrapSprung, TrapReset, MediaCaptured, TagEntered, TagSeen, TagLeft, DeviceDown, DeviceUp)
}
