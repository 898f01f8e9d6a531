from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.advertisement import parse_advertisement
from edge.decoders.eddystone import EddystoneTlm, decode_eddystone_eid, decode_eddystone_tlm, decode_eddystone_uid

TLM = bytes.fromhex("0303aafe 1116aafe 20 00 0bb8 1980 00000102 000003e9")
EID = bytes.fromhex("0303aafe 0d16aafe 30 ec 0123456789abcdef")


def test_a_tlm_frame_is_read_whole() -> None:
    assert decode_eddystone_tlm(parse_advertisement(TLM)) == EddystoneTlm(3000, 25.5, 258, 100.1)


def test_what_a_beacon_does_not_measure_is_absent_and_never_zero() -> None:
    mains = bytes.fromhex("1116aafe 20 00 0000 8000 00000001 00000001")
    assert decode_eddystone_tlm(parse_advertisement(mains)) == EddystoneTlm(None, None, 1, 0.1)


def test_frost_is_below_zero() -> None:
    frost = decode_eddystone_tlm(parse_advertisement(bytes.fromhex("1116aafe 20 00 0bb8 f680 00000001 00000001")))
    assert frost is not None
    assert frost.temperature_c == -9.5


def test_an_encrypted_tlm_frame_says_nothing() -> None:
    encrypted = bytes.fromhex("1516aafe 20 01 00112233445566778899aabb cafe abcd")
    assert decode_eddystone_tlm(parse_advertisement(encrypted)) is None


def test_an_ephemeral_identifier_is_its_eight_bytes() -> None:
    assert decode_eddystone_eid(parse_advertisement(EID)) == bytes.fromhex("0123456789abcdef")


def test_no_frame_is_taken_for_another() -> None:
    uid = bytes.fromhex("1716aafe 00ec 00112233445566778899 0a0b0c0d0e0f 0000")
    url = bytes.fromhex("0d16aafe 10 ec 0123456789abcdef")
    for frame, kinds in ((TLM, "t"), (EID, "e"), (uid, "u"), (url, "")):
        advertisement = parse_advertisement(frame)
        found = {"u": decode_eddystone_uid, "e": decode_eddystone_eid, "t": decode_eddystone_tlm}
        assert "".join(kind for kind, decode in found.items() if decode(advertisement) is not None) == kinds


@given(st.binary(max_size=40))
def test_any_service_data_is_read_without_raising(data: bytes) -> None:
    advertisement = parse_advertisement(bytes((len(data) + 3,)) + b"\x16\xaa\xfe" + data)
    tlm, eid = decode_eddystone_tlm(advertisement), decode_eddystone_eid(advertisement)
    assert tlm is None or (tlm.battery_mv != 0 and tlm.up_s >= 0)
    assert eid is None or len(eid) == 8
