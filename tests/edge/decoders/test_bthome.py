import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.advertisement import Advertisement
from edge.decoders.bthome import PRESSES, SERVICE, BtHome, Sealed, decode_bthome, open_sealed

# The example of bthome.io/encryption: temperature 25.06 and humidity 50.55, sealed by address 5448E68F80A5.
KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")
ADDRESS = "5448e68f80a5"
SEALED = "41 a47266c95f73 00112233 78237214"


def read(hexed: str) -> BtHome | Sealed | None:
    return decode_bthome(Advertisement({}, {SERVICE: bytes.fromhex(hexed)}, whole=True))


def test_battery_and_button_are_read() -> None:
    assert read("44 00 09 01 5a 3a 01") == BtHome(packet_id=9, level=90, presses=("press",))
    assert read("40 0c e40b") == BtHome(voltage=3.044)
    assert read("40 4a 1e00") == BtHome(voltage=3.0)


def test_every_kind_of_press_has_its_name() -> None:
    for code, name in PRESSES.items():
        assert read(f"40 3a {code:02x}") == BtHome(presses=(name,))


def test_a_button_at_rest_is_no_press_and_no_button_is_no_rest() -> None:
    assert read("40 3a 00") == BtHome(presses=())
    assert read("40 01 5a") == BtHome(level=90, presses=None)
    assert read("40 3a 00 3a 04") == BtHome(presses=("long_press",))  # the second of two buttons
    assert read("40 3a 07") == BtHome(presses=())  # a press of tomorrow


def test_other_objects_are_passed_over() -> None:
    assert read("40 02ca09 03bf13 3c0105 53 03 3a0101 54 02 3a01 3a 02") == BtHome(presses=("double_press",))
    # 3a within text, raw bytes and a temperature is no button
    assert read("40 53 02 3a01") == BtHome()
    assert read("40 02 3a01") == BtHome()


def test_what_stands_behind_an_unknown_object_can_not_be_read() -> None:
    assert read("40 01 5a ee 3a 01") == BtHome(level=90)


def test_an_impossible_value_is_left_out() -> None:
    assert read("40 01 65") == BtHome()
    assert read("40 4a ffff") == BtHome()


def test_what_is_cut_off_says_nothing() -> None:
    for hexed in ("", "40 01", "40 0c e4", "40 01 5a 3a", "40 53", "40 53 02 3a", "41 0011223344556677"):
        assert read(hexed) is None, hexed


def test_another_version_says_nothing() -> None:
    for information in ("20", "60", "42", "48", "50"):
        assert read(f"{information} 3a 01") is None
    assert decode_bthome(Advertisement({}, {0xFCD1: bytes.fromhex("403a01")}, whole=True)) is None


def test_a_sealed_frame_opens_with_its_key_and_address_only() -> None:
    sealed = read(SEALED)
    assert isinstance(sealed, Sealed)
    assert open_sealed(sealed, KEY, ADDRESS) == BtHome(counter=0x33221100)
    assert open_sealed(sealed, bytes(16), ADDRESS) is None
    assert open_sealed(sealed, KEY, "5448e68f80a6") is None


@pytest.mark.parametrize("bit", range(0, 15 * 8, 7))
def test_a_changed_bit_breaks_the_seal(bit: int) -> None:
    data = bytearray.fromhex(SEALED)
    data[bit // 8] ^= 1 << bit % 8
    changed = decode_bthome(Advertisement({}, {SERVICE: bytes(data)}, whole=True))
    assert not isinstance(changed, Sealed) or open_sealed(changed, KEY, ADDRESS) is None


@given(st.binary(max_size=60), st.sampled_from([0x40, 0x41, 0x44, 0x45, None]))
def test_any_bytes_are_read_without_raising(data: bytes, information: int | None) -> None:
    content = data if information is None else bytes((information,)) + data
    said = decode_bthome(Advertisement({}, {SERVICE: content}, whole=True))
    if isinstance(said, Sealed):
        assert open_sealed(said, KEY, ADDRESS) is None
    elif said is not None:
        assert said.level is None or 0 <= said.level <= 100
        assert said.voltage is None or 0 <= said.voltage <= 100
        assert set(said.presses or ()) <= set(PRESSES.values())
