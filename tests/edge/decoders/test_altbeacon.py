from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.advertisement import parse_advertisement
from edge.decoders.altbeacon import AltBeacon, decode_altbeacon

# Laid out by the AltBeacon specification v1.0; company 0118 is Radius Networks, who wrote it.
WHOLE = bytes.fromhex("1bff 1801 beac 00112233445566778899aabbccddeeff 0001 0002 c5 7f")


def test_an_altbeacon_is_read_whole() -> None:
    beacon = decode_altbeacon(parse_advertisement(WHOLE))
    assert beacon == AltBeacon(0x0118, "00112233445566778899aabbccddeeff00010002", -59)
    assert beacon.group == "0118:00112233445566778899aabbccddeeff"
    assert beacon.tag == "altbeacon:0118:00112233445566778899aabbccddeeff00010002"


def test_what_is_no_altbeacon_names_no_tag() -> None:
    for hexed in (
        "1bff 1801 bead 00112233445566778899aabbccddeeff 0001 0002 c5 7f",  # another code
        "1aff 1801 beac 00112233445566778899aabbccddeeff 0001 0002 c5",  # a byte too short
        "1cff 1801 beac 00112233445566778899aabbccddeeff 0001 0002 c5 7f 00",  # a byte too long
        "1b16 1801 beac 00112233445566778899aabbccddeeff 0001 0002 c5 7f",  # a service's data
    ):
        assert decode_altbeacon(parse_advertisement(bytes.fromhex(hexed))) is None, hexed


def test_an_altbeacon_cut_off_anywhere_is_no_other_beacon() -> None:
    for length in range(len(WHOLE)):
        assert decode_altbeacon(parse_advertisement(WHOLE[:length])) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_without_raising(data: bytes) -> None:
    beacon = decode_altbeacon(parse_advertisement(data))
    assert beacon is None or len(beacon.tag) == 55
