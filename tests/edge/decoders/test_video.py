import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.video import video_fault, video_type


def box(kind: bytes, content: bytes = b"", *, wide: bool = False) -> bytes:
    if wide:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def riff(form: bytes, content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + form + content


MP4 = box(b"ftyp", b"isom\0\0\2\0isom") + box(b"free") + box(b"mdat", bytes(500), wide=True) + box(b"moov", bytes(100))
MOV = box(b"ftyp", b"qt  \0\0\0\0") + box(b"moov", bytes(60)) + box(b"mdat", bytes(300))
OLD_MOV = box(b"wide") + box(b"mdat", bytes(300)) + box(b"moov", bytes(60))
AVI = riff(b"AVI ", b"LIST" + bytes(200)) + riff(b"AVIX", bytes(100))


def fault(content: bytes) -> str | None:
    return video_fault(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("content", "kind"),
    [(MP4, "video/mp4"), (MOV, "video/quicktime"), (OLD_MOV, "video/quicktime"), (AVI, "video/x-msvideo")],
)
def test_whole_videos_are_known_by_their_first_bytes(content: bytes, kind: str) -> None:
    assert video_type(content[:12]) == kind
    assert fault(content) is None


def test_what_a_camera_fills_the_rest_with_is_no_fault() -> None:
    assert fault(MP4 + bytes(512)) is None
    assert fault(AVI + bytes(512)) is None


def test_a_last_box_that_goes_to_the_end_is_whole() -> None:
    assert fault(box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", bytes(60)) + b"\0\0\0\0mdat" + bytes(99)) is None


@pytest.mark.parametrize("content", [MP4, MOV, OLD_MOV])
def test_a_video_cut_off_anywhere_is_faulty(content: bytes) -> None:
    for length in range(len(content)):
        assert fault(content[:length]) is not None, length


def test_an_avi_cut_off_is_faulty() -> None:
    first = len(riff(b"AVI ", b"LIST" + bytes(200)))
    for length in {*range(len(AVI))} - {*range(first, first + 4)}:  # a few bytes behind a whole RIFF are filling
        assert fault(AVI[:length]) is not None, length


def test_a_video_that_is_still_recorded_is_not_whole() -> None:
    assert fault(box(b"ftyp", b"isom\0\0\2\0") + b"\0\0\0\0mdat" + bytes(5000)) == (
        "its index is missing: it was cut off, or is still being written"
    )
    assert fault(b"RIFF\0\0\0\0AVI LIST" + bytes(5000)) == "its length is missing: it was cut off, or is still being written"


def test_what_is_no_video_says_so() -> None:
    assert fault(b"") == "it is empty"
    assert fault(b"\xff\xd8\xff" + bytes(100)) == "it does not begin as an MP4, MOV or AVI video"
    assert fault(box(b"ftyp", b"isom\0\0\2\0") + box(b"moov", bytes(10))) == "it has no pictures"


@given(st.binary(max_size=120), st.sampled_from([b"", MP4[:24], AVI[:12], box(b"moov", bytes(8))]))
def test_any_bytes_get_a_verdict(content: bytes, head: bytes) -> None:
    said = fault(head + content)
    assert said is None or said.isprintable()
    assert video_type(content) in (None, "video/mp4", "video/quicktime", "video/x-msvideo")
