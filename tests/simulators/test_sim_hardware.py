"""What simulated devices put on the wire, compared with bytes written out by hand from the formats' descriptions."""

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from edge.decoders.advertisement import parse_advertisement, parse_line
from edge.decoders.beam_counter import decode_frame
from edge.decoders.eddystone import decode_eddystone_uid
from edge.decoders.ibeacon import decode_ibeacon
from simulators.hardware import SerialPort, advertisement, advertisement_line, counter_frame, picture, save_picture
from simulators.world import Tag

MORNING_US = int(datetime(2026, 6, 2, 21, 12, 5, tzinfo=UTC).timestamp()) * 1_000_000  # 6月3日 午前6時12分5秒


def crc16_ccitt_false(data: bytes) -> int:
    """Bit by bit, as the catalogue describes it."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


# --- people counter ---------------------------------------------------------------------------------


def test_counter_frame_is_sixteen_little_endian_bytes_with_their_crc() -> None:
    assert crc16_ccitt_false(b"123456789") == 0x29B1
    frame = counter_frame(1000, 998, 3300)
    assert frame == bytes.fromhex("aa55 01 00 e8030000 e6030000 e40c 704c")
    assert frame[14:] == crc16_ccitt_false(frame[:14]).to_bytes(2, "little")


def test_counter_totals_roll_over_as_the_devices_own_do() -> None:
    assert counter_frame(2**32 + 5, 2**32 - 1, 0)[4:12] == bytes.fromhex("05000000 ffffffff")


def test_a_counter_on_mains_power_says_that_it_measures_no_battery() -> None:
    frame = counter_frame(1, 0, None)
    assert frame[:14] == bytes.fromhex("aa55 01 01 01000000 00000000 0000")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.none() | st.integers(0, 2**16 - 1))
def test_the_edge_reads_from_a_frame_what_the_counter_meant(in_total: int, out_total: int, battery_mv: int | None) -> None:
    assert decode_frame(counter_frame(in_total, out_total, battery_mv)) == (in_total, out_total, battery_mv)


# --- BLE tags ---------------------------------------------------------------------------------------


def test_ibeacon_advertisement() -> None:
    tag = Tag("ibeacon", bytes.fromhex("00112233445566778899aabbccddeeff 0001 0203"))
    assert advertisement(tag) == bytes.fromhex(
        "02 01 06"  # flags
        "1a ff 4c00 02 15 00112233445566778899aabbccddeeff 0001 0203 c5"
    )


def test_eddystone_uid_advertisement() -> None:
    tag = Tag("eddystone-uid", bytes.fromhex("00112233445566778899 aabbccddeeff"))
    assert advertisement(tag) == bytes.fromhex(
        "02 01 06"
        "03 03 aafe"  # complete list of 16-bit services
        "17 16 aafe 00 ec 00112233445566778899 aabbccddeeff 0000"
    )


@pytest.mark.parametrize("tag", [Tag("ibeacon", bytes(range(20))), Tag("eddystone-uid", bytes(range(16)))])
def test_an_advertisement_fits_the_air_and_its_structures_fill_it(tag: Tag) -> None:
    data = advertisement(tag)
    at = 0
    while at < len(data):
        at += 1 + data[at]
    assert at == len(data) <= 31


def test_the_receiver_prints_one_line_for_each_advertisement() -> None:
    line = advertisement_line(Tag("eddystone-uid", bytes(16)), -71)
    assert line == b"-71 " + b"0201060303aafe1716aafe00ec" + b"00" * 18 + b"\n"
    assert advertisement_line(Tag("eddystone-uid", bytes(16)), 4).startswith(b"+4 02")


@given(
    st.builds(Tag, st.just("ibeacon"), st.binary(min_size=20, max_size=20))
    | st.builds(Tag, st.just("eddystone-uid"), st.binary(min_size=16, max_size=16)),
    st.integers(-127, 20),
)
def test_the_edge_reads_from_a_line_the_tag_that_sent_it(tag: Tag, rssi: int) -> None:
    heard = parse_line(advertisement_line(tag, rssi).removesuffix(b"\n"))
    assert heard is not None
    said = parse_advertisement(heard.payload)
    found = decode_ibeacon(said) or decode_eddystone_uid(said)
    assert found is not None
    assert (found.tag, heard.rssi_dbm) == (tag.name, rssi)


# --- serial port ------------------------------------------------------------------------------------


def test_pyserial_reads_every_byte_value_unchanged(tmp_path: Path) -> None:
    with SerialPort(tmp_path / "counter") as port, serial.Serial(str(port.path), 9600, timeout=5) as opened:
        assert port.write(bytes(range(256))) == 256
        assert opened.read(256) == bytes(range(256))


def test_what_was_sent_before_anybody_listened_waits_unchanged(tmp_path: Path) -> None:
    with SerialPort(tmp_path / "counter") as port:
        port.write(b"\x03\r\n\x04\x7f\n")
        opened = os.open(port.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            assert os.read(opened, 100) == b"\x03\r\n\x04\x7f\n"
        finally:
            os.close(opened)


def test_a_listener_feels_the_plug_being_pulled(tmp_path: Path) -> None:
    with SerialPort(tmp_path / "counter") as port, serial.Serial(str(port.path), 9600, timeout=5) as opened:
        port.unplug()
        assert not port.path.is_symlink()
        with pytest.raises(OSError, match=r".+"):
            opened.read(1)
        with pytest.raises(OSError, match="unplugged"):
            port.write(b"x")


def test_after_plugging_in_again_the_old_name_works(tmp_path: Path) -> None:
    with SerialPort(tmp_path / "counter") as port:
        port.unplug()
        port.unplug()
        port.plug()
        port.plug()
        with serial.Serial(str(port.path), 9600, timeout=5) as opened:
            port.write(b"here again")
            assert opened.read(10) == b"here again"


def test_a_device_does_not_wait_for_its_listener(tmp_path: Path) -> None:
    with SerialPort(tmp_path / "counter") as port:
        assert 0 < port.write(bytes(1_000_000)) < 1_000_000


# --- trail camera -----------------------------------------------------------------------------------


def test_a_picture_is_a_small_jpeg_with_the_cameras_time_in_it() -> None:
    content = picture(MORNING_US, "wild-boar", seed=1)
    assert content[:2] == b"\xff\xd8"
    assert content[-2:] == b"\xff\xd9"
    assert len(content) < 40_000
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.size == (320, 240)
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == exif[ExifTags.Base.Model] == "SIMCAM"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2026:06:03 06:12:05"


def test_the_same_picture_is_the_same_file_and_any_other_is_another() -> None:
    def sha(t_us: int, what: str, seed: int) -> str:
        return hashlib.sha256(picture(t_us, what, seed)).hexdigest()

    assert sha(MORNING_US, "deer", 1) == sha(MORNING_US, "deer", 1)
    others = [(MORNING_US, "bear", 1), (MORNING_US + 1, "deer", 1), (MORNING_US, "deer", 2), (MORNING_US, "crane", 1)]
    assert len({sha(MORNING_US, "deer", 1), *(sha(*other) for other in others)}) == 5


def test_the_memory_card_numbers_pictures_on_and_never_overwrites_one(tmp_path: Path) -> None:
    names = [save_picture(tmp_path, MORNING_US, content).name for content in (b"one", b"two", b"three")]
    assert names == ["IMG_0001.JPG", "IMG_0002.JPG", "IMG_0003.JPG"]
    (tmp_path / "IMG_0001.JPG").unlink()
    assert save_picture(tmp_path, MORNING_US, b"four").name == "IMG_0004.JPG"
    assert (tmp_path / "IMG_0003.JPG").read_bytes() == b"three"
