import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.eid import DRIFT_PPM, RESTART_S, RotatingTag, eid, expected_identifiers

# The examples of RadiusNetworks/ephemeral_calc, spec/encryptor_spec.rb: 0 s and 2000 s after the tag was started.
KEY = bytes.fromhex("0102030405060708090a111213141516")
HOUR_US = 3_600_000_000
ZERO_US = 1_780_434_720_000_000


def tag(exponent: int = 10, name: str = "tag-9", zero_us: int = ZERO_US) -> RotatingTag:
    return RotatingTag(name, KEY, exponent, zero_us)


@pytest.mark.parametrize(("seconds", "hexed"), [(0, "a9b76a71c5f89290"), (2000, "4144413e45fefa58")])
def test_published_identifiers(seconds: int, hexed: str) -> None:
    assert eid(KEY, 10, seconds).hex() == hexed


def test_an_identifier_holds_for_its_window() -> None:
    assert eid(KEY, 10, 1024) == eid(KEY, 10, 2047) != eid(KEY, 10, 2048)
    assert eid(KEY, 0, 7) != eid(KEY, 0, 8)


def test_the_temporary_key_changes_with_the_upper_16_bits() -> None:
    """Computed with OpenSSL 3.0 alone: two calls of `openssl enc -aes-128-ecb -nopad`."""
    assert eid(KEY, 10, 65536 * 3 + 5000).hex() == "444f7714b3c4937e"


@pytest.mark.parametrize(
    ("key", "exponent", "seconds"), [(KEY[:15], 10, 0), (KEY, 16, 0), (KEY, -1, 0), (KEY, 1, -1), (KEY, 1, 2**32)]
)
def test_what_no_tag_can_have_is_refused(key: bytes, exponent: int, seconds: int) -> None:
    with pytest.raises(ValueError, match=r"identity key|exponent|clock"):
        eid(key, exponent, seconds)


def test_no_key_is_in_what_nodes_get() -> None:
    (first, *_) = expected_identifiers([tag()], ZERO_US + HOUR_US, 1)
    assert KEY.hex() not in repr(first)
    assert len(first.eid) == 16


@given(
    exponent=st.integers(0, 15),
    age_s=st.integers(0, 3 * 365 * 86_400),
    ahead_s=st.floats(0, 3600),
    drift=st.floats(-1, 1),
    chance=st.floats(0, 1),
)
def test_a_tag_is_known_however_its_clock_drifts_and_whenever_it_turns(
    exponent: int, age_s: int, ahead_s: float, drift: float, chance: float
) -> None:
    """Whatever a tag within the specification says in the coming hour, is expected at that time."""
    exponent = max(exponent, 8)  # the list of a tag that turns each second would be long
    now_us = ZERO_US + age_s * 1_000_000
    heard_us = now_us + round(ahead_s * 1e6)
    tag_s = (heard_us - ZERO_US) / 1e6 * (1 + drift * DRIFT_PPM / 1e6) + drift * (RESTART_S - 1)
    window = int(max(tag_s, 0)) >> exponent
    if chance > 0.5 and window:
        window -= 1  # it has not turned yet
    said = eid(KEY, exponent, (window << exponent) % 2**32).hex()
    found = expected_identifiers([tag(exponent)], now_us, 1)
    assert any(one.eid == said and one.from_us <= heard_us < one.until_us for one in found)


def test_only_what_holds_in_the_coming_hours_is_listed_in_order() -> None:
    now_us = ZERO_US + 1000 * HOUR_US
    found = expected_identifiers([tag(10, "a"), tag(12, "b"), tag(10, "later", now_us + 100 * HOUR_US)], now_us, 6)
    assert all(one.until_us > now_us and one.from_us < now_us + 6 * HOUR_US for one in found)
    assert [one.from_us for one in found] == sorted(one.from_us for one in found)
    assert {one.tag for one in found} == {"a", "b"}
    # 6 hours are 21 windows of 1024 s; the drift of 1000 hours and the ten minutes add a few on either side.
    assert 21 <= sum(one.tag == "a" for one in found) <= 28


def test_a_clock_that_ran_over_begins_again() -> None:
    old = tag(zero_us=0)
    over_us = 2**32 * 1_000_000
    found = {one.eid for one in expected_identifiers([old], over_us + 3600_000_000, 1)}
    assert eid(KEY, 10, 3072).hex() in found
