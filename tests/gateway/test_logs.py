"""The log, as somebody reads it who may know nothing of anybody: what a line looks like, what is never in one."""

import io
import json
import logging
import re
import subprocess
import sys
import textwrap
import timeit
from collections.abc import Iterator
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from gateway.api import gate, web
from gateway.errors import StoreDown
from gateway.logs import HIDDEN, LONGEST, LONGEST_TRACE, LogConfig, handler, masked
from simulators.line import user_id
from simulators.scenario import told

LINE_ID = "U" + "0123456789abcdef" * 2
START = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: ")


class Log:
    """Both formats of one log."""

    def __init__(self) -> None:
        self.streams = {"text": io.StringIO(), "json": io.StringIO()}
        self.handlers = [handler(LogConfig.model_validate({"format": name}), to) for name, to in self.streams.items()]

    @property
    def text(self) -> str:
        return self.streams["text"].getvalue()

    @property
    def lines(self) -> list[str]:
        """Of the text, those that begin a message."""
        return [line for line in self.text.splitlines() if not line.startswith(" ")]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams["json"].getvalue().splitlines()]

    def __contains__(self, what: str) -> bool:
        return any(what in one.getvalue() for one in self.streams.values())


@pytest.fixture
def log() -> Iterator[Log]:
    made, root = Log(), logging.getLogger()
    for one in made.handlers:
        root.addHandler(one)
    yield made
    for one in made.handlers:
        root.removeHandler(one)


def say(*words: object, **more: Any) -> None:
    logging.getLogger("gateway.of_a_test").error(*words, **more)


# --- What it looks like -----------------------------------------------------------------------------


def test_a_line_for_people_is_time_level_logger_and_message(log: Log) -> None:
    say("the broker is not connected (%s); trying again until it is", "timed out")
    [line] = log.lines
    assert START.match(line)
    assert line.endswith(" ERROR gateway.of_a_test: the broker is not connected (timed out); trying again until it is")


def test_a_line_for_programs_is_an_object_with_the_time_in_utc() -> None:
    stream = io.StringIO()
    record = logging.LogRecord("gateway.watch", logging.WARNING, "watch.py", 1, "わな %d", (3,), None)
    record.created = 1_780_434_720.123456
    handler(LogConfig(format="json"), stream, role="rules", worker="w-07").handle(record)
    assert json.loads(stream.getvalue()) == {
        "time": "2026-06-02T21:12:00.123456Z", "level": "warning", "logger": "gateway.watch", "event": "わな 3",
        "thread": "MainThread", "role": "rules", "worker": "w-07",
    }  # fmt: skip


def test_where_an_error_came_from_stands_below_and_what_it_came_of_first(log: Log) -> None:
    try:
        try:
            raise StoreDown("http://127.0.0.1:8428 does not answer")
        except StoreDown as error:
            raise RuntimeError("while writing") from error
    except RuntimeError:
        say("chore %s failed", "rollups", exc_info=True)
    [told] = log.objects
    assert told["exception"].index("StoreDown: http://127.0.0.1:8428 does not answer") < told["exception"].index("RuntimeError")
    assert f"{Path(__file__).name}" in told["exception"]
    first, *rest = log.text.splitlines()
    assert START.match(first)
    assert rest
    assert all(line.startswith("  ") for line in rest)


def test_what_came_from_outside_forges_no_line_and_moves_no_cursor(log: Log) -> None:
    forged = "2026-06-03 06:12:00,000 ERROR gateway.watch: all is well"
    hostile = (f"x\n{forged}\r\x1b[2J\u202e\ud800",)
    for one in log.handlers:  # past pytest, whose own account of a test can't hold half a character
        one.handle(
            logging.LogRecord(
                "gateway.of_a_test", logging.ERROR, __file__, 1, "a message on %s broke the pipeline", hostile, None
            )
        )
    try:
        raise OSError(5, f"\n{forged}")
    except OSError:
        say("a message broke the pipeline\n%s", forged, exc_info=True)
    assert [bool(START.match(line)) for line in log.lines] == [True, True]
    assert "\\n2026" in log.lines[0]
    assert "\\x1b[2J\\u202e\\ud800" in log.lines[0]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", log.text)
    assert len(log.objects) == 2


def test_a_long_value_is_cut_and_says_how_long_it_was(log: Log) -> None:
    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        raise StoreDown("y" * 50_000)

    say("z" * 100_000)
    try:
        deep(300)
    except StoreDown:
        say("twice", exc_info=True)
    assert log.objects[0]["event"] == "z" * LONGEST + "… (100000 characters)"
    assert len(log.objects[1]["exception"]) < LONGEST_TRACE + 100
    assert "StoreDown: yyy" in log.objects[1]["exception"], "the end is what tells most"


def test_a_line_whose_values_do_not_fit_says_so_and_shows_none_of_them(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    for one in log.handlers:
        one.handle(logging.LogRecord("gateway.of_a_test", logging.ERROR, __file__, 7, "two of them: %d %d", ("tanaka",), None))
    assert "a line of gateway.of_a_test (test_logs.py:" in log.text
    assert "tanaka" not in log
    assert "tanaka" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "fault"),
    [({"format": "xml"}, "format"), ({"level": "loud"}, "level"), ({"levels": {"gateway watch": "info"}}, "no logger's name")],
)
def test_a_wrong_setting_is_refused(written: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        LogConfig.model_validate(written)


SET_UP = """
import logging, threading, warnings
from gateway.logs import LogConfig, set_up

set_up(LogConfig())
set_up(LogConfig(format="json", levels={"gateway.watch": "debug", "httpx": "info"}), role="ingest")
for name in ("gateway.watch", "gateway.ingest", "httpx", "httpcore"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).info("info of %s", name)
warnings.warn("tanaka@example.jp is deprecated")
import structlog
structlog.get_logger("gateway.other").warning("by structlog", node="kitayama-03", to="tanaka@example.jp")
thread = threading.Thread(target=lambda: {}["花山ハナ乃"], name="chores")
thread.start()
thread.join()
raise ValueError("花山ハナ乃")
"""


def test_in_a_process_all_there_is_goes_through_it_errors_that_end_it_too() -> None:
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(SET_UP)], capture_output=True, text=True, check=False, timeout=60)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert {line["role"] for line in lines} == {"ingest"}
    assert [line["event"] for line in lines[:4]] == [
        "debug of gateway.watch", "info of gateway.watch", "info of gateway.ingest", "info of httpx",
    ]  # fmt: skip
    warned, other, of_thread, of_main = lines[4:]
    assert warned["event"].count(HIDDEN) == 1
    assert (other["event"], other["node"], other["to"]) == ("by structlog", "kitayama-03", HIDDEN)
    assert of_thread["exception"].endswith(f"builtins.KeyError: {HIDDEN}")
    assert of_main["exception"].endswith(f"builtins.ValueError: {HIDDEN}")
    assert ran.returncode == 1
    assert ran.stdout == ""


# --- What is never in one ---------------------------------------------------------------------------

PERSONAL = {
    "a mobile phone": "090-1234-5678",
    "a landline": "(088) 621-5000",
    "full-width digits": "０９０－１２３４－５６７８",
    "digits only": "09012345678",
    "as the world writes it": "+81 90-1234-5678",
    "as a machine writes it": "+819012345678",
    "a mail address": "tanaka.taro+satomori@mail.example.jp",
    "an id of LINE": LINE_ID,
    "a signed link": "https://gateway.example.jp/a/c2F0b21vcmktdG9rZW4",
    "a push endpoint": "https://push.example.net/wpush/v2/gAAAAABmY2F0b21vcmlhbmRtb3Jl:xyz",
    "a token in a URL": "https://api.example.net/x?token=c2F0b21v",
    "a key of ours": "c2F0b21vcmktVG9rZW4tMTIzNDU2Nzg5MA",
    "a place": "34.07031, 134.55482",
}
"""Invented."""


@pytest.mark.parametrize("before", ["", "宛先", "to=", '"'])
@pytest.mark.parametrize("what", PERSONAL.values(), ids=PERSONAL)
def test_what_looks_personal_is_hidden_wherever_it_stands(what: str, before: str, log: Log) -> None:
    secret = max(re.split(r"[/ ,]", what), key=len)
    after = '"' if before == '"' else " は無効です"
    say("the provider said: %s", before + what + after)
    try:
        raise OSError(5, f"{before}{what}{after}")
    except OSError:
        say("it failed", exc_info=True)
    assert what not in log
    assert secret not in log
    assert log.text.count(HIDDEN) == 2


@pytest.mark.parametrize(
    "line",
    ["postgresql+psycopg://satomori:geheim@db.example/state", "mqtts://a:geheim@b@c.example",
     "Authorization: Bearer abc.def.ghi", "{'Authorization': 'Basic c2F0b21v'}", "Cookie: a=geheim1; b=geheim2", "token=geheim",
     "緯度34.0703 経度134.5548", '{"lat": 34.07, "lon": 134.55}'],
)  # fmt: skip
def test_what_is_called_secret_or_a_place_is_hidden(line: str) -> None:
    assert not re.search(r"abc|c2F0|geheim|34\.|134\.", masked(line))


@pytest.mark.parametrize(
    "line",
    [
        "2026-06-03 06:12:00,123 took 12.345 s, at 127.0.0.1:8080",
        "delivery 0c8f8b0e-3d5b-5a57-9c0a-706167657321 over contact.office_0 waits",
        "address 3f2a91 of contact 9d00aa is unreachable since 1780434720000000: bounced",
        "a message on satomori/v1/29/kitayama-03/up/live broke the pipeline; quarantined",
        "the series store takes no points (http://127.0.0.1:8428: timed out)",
        "state.url: the database sqlite:////var/lib/satomori-gateway/state.db can't be opened",
        f"media {'0123456789abcdef' * 4} of kitayama-03/cam-02, 0 of 12 bytes",
        "api.tokens_file: line 3; channel.mail.password_file: /etc/satomori/password can't be read",
    ],
)
def test_what_an_operator_needs_stays(line: str) -> None:
    assert masked(line) == line


def test_every_page_that_a_link_opens_is_hidden_in_it() -> None:
    """A path added to the gate and not to the masks would have its links in the log."""
    own = {"/open/", "/tiles/", web.ASSETS}
    for path in set(gate.OPEN_BELOW) - own:
        for line in (f'"GET {path}c2F0b21v HTTP/1.1" 200', f"https://a.example{path}c2F0b21v"):
            assert "c2F0b21v" not in masked(line), path


@pytest.mark.parametrize(
    "error",
    [
        ValueError("花山ハナ乃"),
        KeyError("花山ハナ乃"),
        IntegrityError("INSERT", None, Exception("DETAIL:  Key (name)=(花山ハナ乃) already exists.")),
        ExceptionGroup("of 花山ハナ乃", [TypeError("花山ハナ乃")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_quotes_what_somebody_wrote_is_told_without_its_words(error: Exception, log: Log) -> None:
    try:
        raise error
    except Exception:  # noqa: BLE001 - any
        say("a page failed", exc_info=True)
    assert "花山" not in log
    assert f"{type(error).__qualname__}: {HIDDEN}" in log


@pytest.mark.parametrize("seed", ["a@", "0-", "+1 ", "x://", "A1a-", "?a=", "/a/", "1.234,", "a.b@c.", "cookie:", "0", "-"])
def test_no_text_takes_long_to_look_through(seed: str) -> None:
    """Twice as much of it takes no more than about twice as long."""

    def took(number: int) -> float:
        text = seed * number
        return min(timeit.repeat(lambda: masked(text), number=1, repeat=5, timer=thread_time))  # of ours, whoever else is busy

    assert took(4000) < 12 * took(1000) + 0.002


STORY = """
title = "Nothing of all this goes well, and the log tells of it"
start = "2026-06-03T01:30:00+09:00"
person = [
  { name = "花山はるか", group = "family-hana", channels = ["line", "mail"] },
  { name = "花山みのる", group = "family-hana", channels = ["voice", "mail"], language = "ja-easy" },
  { name = "霧沢係長", group = "office", channels = ["mail", "sms"] },
  { name = "川端一郎", group = "volunteers" },
  { name = "森下次郎", group = "next", joined = false },
]
node = [{ name = "tsubaki", device = {} }, { name = "kominkan", device = {} }]
deployment = [
  { node = "tsubaki", device = "tags", kind = "tags", place = "つばきの家" },
  { node = "kominkan", device = "tags", kind = "tags", place = "中央公民館" },
]
watched = [{ name = "花山ハナ乃", family = "family-hana", homes = ["tsubaki/tags"], tag = "ibeacon:0f0e:1:2" }]
route = [{ match = { kind = "watched" }, steps = [{ to = "family" }, { after = "5m", to = "office" }] }, { to = "office" }]

search = { volunteers = "volunteers", step = [{ after = "30m", to = ["next"] }] }
rule.night-exit = { type = "presence", when = "left_home_at_night", severity = "critical" }

step = [
  { at = "01:32", do = "follow", person = "森下次郎" },
  { at = "01:33", do = "join", person = "森下次郎", group = "next" },
  { at = "01:34", do = "write", person = "森下次郎", text = "花山ハナ乃を見た 090-1234-5678" },
  { at = "01:35", do = "block", person = "川端一郎" },
  { at = "01:40", do = "hear", node = "tsubaki", device = "tags", tag = "ibeacon:0f0e:1:2", says = "tag_entered" },
  { at = "02:00", do = "channel_answers", channel = "line", status = 500 },
  { at = "02:00", do = "channel_answers", channel = "mail", status = 451 },
  { at = "02:10", do = "hear", node = "tsubaki", device = "tags", tag = "ibeacon:0f0e:1:2", says = "tag_left" },
  { at = "02:20", do = "channel_down", channel = "twilio" },
  { at = "02:30", do = "find", tag = "ibeacon:0f0e:1:2", what = "misuse", words = "花山ハナ乃さんの車にありました" },
  { at = "02:40", do = "channel_up", channel = "line" },
  { at = "02:45", do = "channel_up", channel = "mail" },
  { at = "03:10", do = "look" },
]
"""
NAMES = ("花山", "はるか", "みのる", "ハナ乃", "霧沢", "川端", "森下")


def test_a_night_in_which_everything_fails_names_nobody(tmp_path: Path, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """The whole gateway, with people, their phones and their providers: what each hands to the log, and what stands in it."""
    caplog.set_level(logging.DEBUG, logger="gateway")
    (tmp_path / "scenario.toml").write_text(STORY, encoding="utf-8")
    transcript = json.dumps(told(tmp_path, tmp_path / "home"), ensure_ascii=False)
    assert all(name in transcript for name in ("花山ハナ乃", "花山はるか")), "it did reach people"
    assert len([one for one in log.objects if one["logger"].startswith("gateway")]) >= 5, "and the log told of it"
    ids = [user_id(name) for name in ("花山はるか", "川端一郎", "森下次郎")]
    for secret in (*NAMES, *ids, "0f0e:1:2", "090-1234-5678", "+8150", "@example", "見た", "車にありました"):
        assert secret not in log, secret
    # What this code itself says needs no mask: names would pass it.
    for record in caplog.records:
        if record.name.startswith("gateway"):
            assert not any(name in record.getMessage() for name in NAMES)
