"""What the demo tells on a terminal of 80 columns, in words."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from simulators.demo import Narrator, _summary
from simulators.phone import Received
from simulators.phones import Got


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tell(out: io.StringIO) -> Narrator:
    return Narrator(Console(file=out, width=80))


def test_a_long_message_of_the_phone_is_broken_beside_its_time(tell: Narrator, out: io.StringIO) -> None:
    body = "6月3日 午前6時12分。" * 8 + "[写真1枚]"
    tell.phone((Received(0, {"title": "【わな作動】北尾根 3番", "body": body, "severity": "critical"}, "", 200),))
    lines = out.getvalue().splitlines()
    assert len(lines) > 1
    assert max(map(cell_len, lines)) <= 80
    assert all(line.startswith(" " * 9) for line in lines[1:])
    assert "".join(out.getvalue().split()).endswith("".join(body.split()))


def test_an_address_is_one_line_that_can_be_copied(tell: Narrator, out: io.StringIO) -> None:
    url = "http://127.0.0.1:40000/#token=" + "a" * 60
    tell.say(f"the town's page:  {url}", whole=True)
    assert out.getvalue().endswith(f"{url}\n")


def test_the_summary_is_in_words(tell: Narrator, out: io.StringIO) -> None:
    latency = {"event_to_phone_p50": 312.5, "event_to_phone_p95": None}
    _summary(tell, {"records_lost": 0, "alerts": {"camera": 3, "trap": 2}, "latency_ms": latency})
    said = [" ".join(line.split()[2:]) for line in out.getvalue().splitlines()]
    assert said[1:] == ["records_lost 0", "alerts camera 3, trap 2", "latency_ms p50 312.5, p95 unknown"]


def test_no_alert_is_none(tell: Narrator, out: io.StringIO) -> None:
    _summary(tell, {"alerts": {}})
    assert out.getvalue().split()[-1] == "none"


def test_a_persons_message_says_to_whom_and_over_what_it_came_and_its_title_once(tell: Narrator, out: io.StringIO) -> None:
    tell.people([Got("佐藤", "mail", "【わな作動】北尾根 3番", "【わな作動】北尾根 3番\n\nまだ誰も向かっていません。")])
    assert "佐藤 (mail) 【わな作動】北尾根 3番 まだ誰も向かっていません。" in " ".join(out.getvalue().split())
