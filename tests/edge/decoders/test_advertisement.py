from hypothesis import given
from hypothesis import strategies as st

from edge.decoders.advertisement import MAX_LINE, Advertisement, Heard, Lines, parse_advertisement, parse_line
from edge.decoders.eddystone import EddystoneUid, decode_eddystone_uid
from edge.decoders.ibeacon import IBeacon, decode_ibeacon

IBEACON = bytes.fromhex("020106 1aff 4c00 0215 0f1e2d3c4b5a49788796a5b4c3d2e1f0 0001 01f4 c5")
EDDYSTONE = bytes.fromhex("020106 0303aafe 1716aafe 00ec 00112233445566778899 0a0b0c0d0e0f 0000")


def test_an_advertisement_is_split_into_what_companies_and_services_say() -> None:
    payload = bytes.fromhex("020106 0303aafe 05ff4c001005 0416aafe20 06ffe0000102ff")
    assert parse_advertisement(payload) == Advertisement(
        manufacturer={0x004C: bytes.fromhex("1005"), 0x00E0: bytes.fromhex("0102ff")},
        services={0xFEAA: bytes.fromhex("20")},
        whole=True,
    )


def test_of_two_structures_of_one_company_the_first_counts() -> None:
    assert parse_advertisement(bytes.fromhex("04ff4c0001 04ff4c0002")).manufacturer == {0x004C: b"\x01"}


def test_a_zero_length_ends_the_advertisement() -> None:
    assert parse_advertisement(bytes.fromhex("04ff4c0001 00 04ffe00002")) == Advertisement({0x004C: b"\x01"}, {}, True)


def test_a_structure_that_runs_over_the_end_is_left_out_and_said() -> None:
    assert parse_advertisement(bytes.fromhex("04ff4c0001 05ffe00002")) == Advertisement({0x004C: b"\x01"}, {}, False)


def test_a_structure_too_short_for_its_identifier_says_nothing() -> None:
    assert parse_advertisement(bytes.fromhex("01ff 02ff4c 0216aa")) == Advertisement({}, {}, True)


def test_an_ibeacon_is_read_whole() -> None:
    beacon = decode_ibeacon(parse_advertisement(IBEACON))
    assert beacon == IBeacon("0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0", 1, 500, -59)
    assert beacon.tag == "ibeacon:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0:1:500"


def test_an_eddystone_uid_is_read_whole() -> None:
    frame = decode_eddystone_uid(parse_advertisement(EDDYSTONE))
    assert frame == EddystoneUid("00112233445566778899", "0a0b0c0d0e0f", -20)
    assert frame.tag == "eddystone-uid:00112233445566778899:0a0b0c0d0e0f"


def test_an_eddystone_uid_may_leave_out_its_reserved_bytes() -> None:
    short = bytes.fromhex("1516aafe 00ec 00112233445566778899 0a0b0c0d0e0f")
    assert decode_eddystone_uid(parse_advertisement(short)) == EddystoneUid("00112233445566778899", "0a0b0c0d0e0f", -20)


def test_what_is_no_beacon_names_no_tag() -> None:
    for hexed in (
        "1aff 4d00 0215 0f1e2d3c4b5a49788796a5b4c3d2e1f0 0001 01f4 c5",  # another company
        "1aff 4c00 0216 0f1e2d3c4b5a49788796a5b4c3d2e1f0 0001 01f4 c5",  # another type of Apple's
        "1bff 4c00 0215 0f1e2d3c4b5a49788796a5b4c3d2e1f0 0001 01f4 c500",  # a byte too long
        "1716aafe 10ec 00112233445566778899 0a0b0c0d0e0f 0000",  # Eddystone-URL
        "1716abfe 00ec 00112233445566778899 0a0b0c0d0e0f 0000",  # another service
        "1616aafe 00ec 00112233445566778899 0a0b0c0d0e0f 00",  # an odd length
    ):
        advertisement = parse_advertisement(bytes.fromhex(hexed))
        assert decode_ibeacon(advertisement) is None, hexed
        assert decode_eddystone_uid(advertisement) is None, hexed


def test_a_beacon_cut_off_anywhere_is_no_other_beacon() -> None:
    for length in range(len(IBEACON)):
        assert decode_ibeacon(parse_advertisement(IBEACON[:length])) is None
    for length in range(len(EDDYSTONE)):
        assert decode_eddystone_uid(parse_advertisement(EDDYSTONE[:length])) is None


def test_a_receivers_line_gives_signal_and_payload() -> None:
    assert parse_line(b"-67 0201061aFF") == Heard(-67, bytes.fromhex("0201061aff"))
    assert parse_line(b"-127 00\r") == Heard(-127, b"\x00")
    assert parse_line(b"+20 00") == Heard(20, b"\x00")


def test_what_is_no_line_of_a_receiver_is_none() -> None:
    for line in (
        b"",
        b"-67",
        b"-67 ",
        b"67 0201",  # the sign is compulsory: this may be the end of "-67"
        b"-128 0201",
        b"+21 0201",
        b"-67 020",
        b"-67 02 01",
        b"-67  0201",
        b"-67 020g",
        b"-6\xb7 0201",
        "-６７ 0201".encode(),
        b" -67 0201",
        b"-67 0201\n",
    ):
        assert parse_line(line) is None, line


def test_a_line_may_say_who_sent_it_and_end_in_a_checksum() -> None:
    payload = bytes.fromhex("0201061aff")
    assert parse_line(b"-67 0201061aFF C0ffEE000001") == Heard(-67, payload, "c0ffee000001")
    assert parse_line(b"-67 0201061aff 9bbf") == Heard(-67, payload, None, checked=True)
    assert parse_line(b"-67 0201061aff c0ffee000001 9f7e\r") == Heard(-67, payload, "c0ffee000001", checked=True)


def test_a_checksum_finds_what_a_bad_cable_does() -> None:
    line = b"-67 0201061aff c0ffee000001 9f7e"
    assert parse_line(line) is not None
    for at in range(len(line)):
        for other in b"0f- ":
            changed = line[:at] + bytes((other,)) + line[at + 1 :]
            assert changed == line or parse_line(changed) is None, changed
    for wrong in (b"-67 0201061aff 9bb", b"-67 0201061aff 9bbff", b"-67 0201061aff 9f7e c0ffee000001"):
        assert parse_line(wrong) is None, wrong


def test_a_line_cut_off_at_its_front_is_never_taken_for_another_signal() -> None:
    line = b"-67 " + IBEACON.hex().encode()
    for start in range(1, len(line)):
        assert parse_line(line[start:]) is None


def test_a_line_that_lost_its_end_names_no_tag() -> None:
    line = b"-67 " + IBEACON.hex().encode()
    for length in range(len(line)):
        heard = parse_line(line[:length])
        assert heard is None or decode_ibeacon(parse_advertisement(heard.payload)) is None


def test_an_overlong_line_is_dropped_and_counted_and_the_next_one_is_read() -> None:
    lines = Lines()
    assert lines.feed(b"x" * MAX_LINE + b"\nok") == [b"x" * MAX_LINE]
    assert lines.feed(b"\n" + b"y" * MAX_LINE) == [b"ok"]
    assert lines.feed(b"y" * 10_000) == []
    assert lines.too_long == 1
    assert lines.feed(b"y\nafter\n") == [b"after"]
    assert lines.too_long == 1


@given(st.binary(max_size=80))
def test_any_bytes_are_an_advertisement_of_some_kind(payload: bytes) -> None:
    advertisement = parse_advertisement(payload)
    decode_ibeacon(advertisement)
    decode_eddystone_uid(advertisement)
    parse_line(payload)
    for data in (*advertisement.manufacturer.values(), *advertisement.services.values()):
        assert data in payload  # nothing is made up


@given(st.lists(st.one_of(st.just(b"\n"), st.binary(max_size=8), st.just(b"z" * (MAX_LINE - 1))), max_size=12), st.data())
def test_lines_do_not_depend_on_how_the_bytes_come(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    at_once = Lines()
    expected = at_once.feed(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    in_chunks = Lines()
    lines = [
        line for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for line in in_chunks.feed(stream[start:end])
    ]
    assert (lines, in_chunks.too_long) == (expected, at_once.too_long)
    assert [line for line in stream.split(b"\n")[:-1] if len(line) <= MAX_LINE] == expected
