"""The log: how a line looks, and what never stands in one. Whoever logs calls `logging`; nothing else is known of here.

A line says what happened to which node, rule or notification, never to whom: names stay out because no code hands them over,
which a test holds. What follows catches what slips through from elsewhere, in another program's words: phone numbers, mail
addresses, ids of LINE, links that are a proof, tokens, coordinates. What an error says of itself is shown of errors that speak of
the machine; a ValueError quotes what somebody wrote.

What came from outside can forge no line: each begins with its time, and whatever belongs to it is escaped or indented.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Any, Literal, TextIO

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from structlog.stdlib import ProcessorFormatter

from gateway.errors import ConfigError, StoreDown, StoreRefused

Level = Literal["debug", "info", "warning", "error"]

LONGEST, LONGEST_TRACE = 2_000, 12_000
"""Characters of a message, and of what an error left behind."""
HIDDEN = "[hidden]"

_QUIET = {"httpx": "warning", "httpcore": "warning", "alembic": "warning"}
"""Others' loggers that would tell of each request."""
_OURS = (OSError, OperationalError, ConfigError, StoreDown, StoreRefused, ImportError, AttributeError, NameError)
"""Errors whose own text is of the machine or of the code: it is shown."""


def _is_logger(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name):
        raise ValueError(f"{name!r} is no logger's name like gateway.watch")
    return name


class LogConfig(BaseModel):
    """`[log]`: what the log looks like, and how much it says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["text", "json"] = Field("text", description="A line for people, or one JSON object for programs.")
    level: Level = Field("info", description="The least that is logged.")
    levels: dict[Annotated[str, AfterValidator(_is_logger)], Level] = Field(
        {}, description='Of single loggers and what is below them: {"gateway.watch" = "debug"}.'
    )


def set_up(config: LogConfig, **who: str) -> None:
    """Has all that is logged from now on go to stderr as `config` says. `who`: what each line says of its process, as its role.

    May be called again. Where a program that runs us has set up logging itself, as pytest does, that is left alone.
    """
    root = logging.getLogger()
    if any(not isinstance(one, _Handler) for one in root.handlers):
        return
    root.handlers[:] = [handler(config, sys.stderr, **who)]
    root.setLevel(config.level.upper())
    for name, level in {**_QUIET, **config.levels}.items():
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # An error that ends the program, or a thread, is told like any other.
    sys.excepthook = _ended
    threading.excepthook = lambda died: _ended(died.exc_type, died.exc_value, died.exc_traceback)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def handler(config: LogConfig, stream: TextIO, **who: str) -> logging.Handler:
    """What writes lines as `config` says; the levels are the loggers'."""

    def said(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return _as_told(event, who)

    made = _Handler(stream)
    show = _line if config.format == "text" else _object
    made.setFormatter(ProcessorFormatter(processors=[said, show], keep_stack_info=False))
    return made


def masked(text: str) -> str:
    """Without what looks like somebody's number, address, id, place, or the key to something."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def _told(value: object, longest: int = LONGEST) -> str:
    """As it stands on one line: masked, without what a terminal would obey, not longer than that."""
    text = str(value)
    told = masked(text[: 2 * longest])  # cut with room to spare: half a number would be known by no mask
    if len(told) > longest or len(text) > 2 * longest:
        told = f"{told[:longest]}… ({len(text)} characters)"
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), told)


class _Handler(logging.StreamHandler[TextIO]):
    """Python's own, which would print a line's arguments as they are where they do not fit it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging calls it so
        with suppress(Exception):  # nobody reads stderr any more: there is nowhere left to say it
            self.stream.write(f"a line of {record.name} ({record.filename}:{record.lineno}) could not be written\n")
            self.flush()


def _ended(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("ended by an error that nobody expected", exc_info=(kind, error or kind(), trace))


# --- What a line holds ------------------------------------------------------------------------------


def _as_told(event: MutableMapping[str, Any], who: dict[str, str]) -> dict[str, Any]:
    record: logging.LogRecord = event["_record"]
    own = {name: value for name, value in event.items() if name not in ("event", "exc_info", "stack_info", "_from_structlog")}
    own.pop("_record")
    told: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _told(event["event"]),
        "thread": _told(record.threadName),
        **who,
        **{_told(name, 100): _told(value) for name, value in own.items()},
    }
    exc_info = event.get("exc_info")
    error = sys.exc_info()[1] if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        told["exception"] = _trace(error)
    return told


def _object(_logger: object, _method: str, told: MutableMapping[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False)


def _line(_logger: object, _method: str, told: MutableMapping[str, Any]) -> str:
    at = datetime.fromisoformat(told["time"]).astimezone()
    more = "".join(f" {name}={value}" for name, value in told.items() if name not in _SHOWN)
    first = f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03d} {told['level'].upper()} {told['logger']}: {told['event']}{more}"
    return "\n".join([first, *(f"  {line}" for line in told.get("exception", "").splitlines())])


_SHOWN = ("time", "level", "logger", "event", "thread", "exception")


def _trace(error: BaseException) -> str:
    """Where it came from, and from what: frames and source lines are code; what errors say is shown of `_OURS` only."""
    told = "\n".join(line for one in _chain(error) for line in _of_one(one))
    return told if len(told) <= LONGEST_TRACE else f"… ({len(told)} characters)\n{told[-LONGEST_TRACE:]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It and its causes, the first cause first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return reversed(chain)


def _of_one(error: BaseException) -> Iterator[str]:
    for frame in traceback.format_tb(error.__traceback__):
        yield from (_told(line) for line in frame.splitlines())
    text = _told(error) if isinstance(error, _OURS) else HIDDEN if str(error) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}" + (f": {text}" if text else "")
    for one in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from (f"  {line}" for line in _trace(one).splitlines())


# --- What never stands in one -----------------------------------------------------------------------

_LONG = re.compile("[^/]{20,}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def _url(found: re.Match[str]) -> str:
    """An address without who asks, without what is asked, and without what only somebody told of it can know."""
    scheme, host, path, query = found.groups()
    return f"{scheme}{host}{_LONG.sub(HIDDEN, path)}{'?' + HIDDEN if query else ''}"


_DASH = r"[-‐‑–−－ー.() 　]"
_END = r"(?![\dA-Za-z_])"
_MASKS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # The paths whose rest is a proof (gateway.api.gate.OPEN_BELOW), at a host or by themselves.
    (re.compile(r"((?:://[^/\s\"']+|(?<![\w./-]))/(?:a|v|join|push|m|s|c|f|login|hooks/twilio)/)[^\s\"'<>,;)]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\b([a-z][a-z0-9+]{1,30}://)(?:[^\s/\"']*@)?([^\s/?#\"'<>@]+)([^\s?#\"'<>]*)(\?[^\s\"'<>]*)?"), _url),
    (re.compile(r"([?&][\w.%-]+=)[^\s&\"'<>]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)(?:\w+\s+)?[^\s\"',]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s*[:=]\s*[\"']?)[^\n\"']+"), rf"\1{HIDDEN}"),
    (
        re.compile(r"(?i)\b((?:access_|auth_)?token|password|passwd|secret|api[_-]?key)([\"']?\s*[:=]\s*[\"']?)[^\s\"',;]+"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), HIDDEN),
    (re.compile(rf"(?<![A-Za-z0-9])[UCR][0-9a-f]{{32}}{_END}"), HIDDEN),
    # Long, with capitals, small letters and digits: a key or a token. Hashes and UUIDs have no capitals.
    (re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{24,}", re.ASCII), HIDDEN),
    (
        re.compile(r"(?i)(\b(?:lat|lon|lng|latitude|longitude)(?=\W)|緯度|経度)([\"']?[\s:=]*)[+-]?\d+(?:\.\d+)?"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?<![\d.])[+-]?\d{1,3}\.\d{3,}°?\s*[NS]?\s*[,/; 、]\s*[+-]?\d{1,3}\.\d{3,}"), HIDDEN),
    (re.compile(rf"(?<![\dA-Za-z_.])[+＋]\d(?:{_DASH}?\d){{7,14}}{_END}"), HIDDEN),
    # As within Japan: 0 and nine or ten digits, together or in three groups.
    (
        re.compile(rf"(?<![\dA-Za-z_.-])[(（]?[0０](?:\d{{9,10}}|\d{{1,4}}{_DASH}{{1,2}}\d{{1,4}}{_DASH}{{1,2}}\d{{3,4}}){_END}"),
        HIDDEN,
    ),
)
