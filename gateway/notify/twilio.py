"""sms and voice: a message as a short message, or as a call that is answered by the keypad, both through Twilio.

Twilio knows no key by which a repetition could be told, so `find` asks it what it did since an attempt was begun. What it makes
of a message later (nobody took the call, no such number) it tells the hooks of `gateway.api.hooks_twilio`, and what a call says
after the first question is theirs too. https://www.twilio.com/docs/voice/api/call-resource
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator

from gateway.errors import ConfigError
from gateway.notify.message import Language, Message
from gateway.notify.outcome import Delivered, Gone, Outcome, Refused, Retry, Unknown
from gateway.secret_files import read_secret_text
from gateway.words import keypad, spoken

MOST_SMS_UNITS = 670
"""UTF-16 code units: ten parts of 67, the most that Twilio joins."""
MOST_TWIML = 4000
"""Characters that a call may bring along."""
MOST_DIGITS = 9
PATIENCE_S = 10
"""How long a call waits for a key after it has spoken."""
ANEW = 3
"""How often a call asks."""
LOOK_BACK_S = 120.0
"""Twilio's clock and ours may differ by so much."""
MOST_FOUND = 50

KEYPAD, STATUS = "/hooks/twilio/keypad/", "/hooks/twilio/status/"

_REASON = 300
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_NO_SUCH_NUMBER = frozenset((13223, 13224, 21211, 21214, 21217, 21401, 21610, 21612, 21614))
"""Invalid, not reachable by this, or its person said STOP. https://www.twilio.com/docs/api/errors"""
_BUSY = frozenset((20429, 14107))
_NOT_TAKEN = frozenset(("failed", "undelivered", "canceled"))

_frozen = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TwilioConfig(BaseModel):
    """`[channel.twilio]`: short messages and calls. Needs the extra `voice`."""

    model_config = _frozen

    account_sid: Annotated[str, Field(pattern=r"^AC[0-9a-f]{32}$")] = Field(description="The account: AC and 32 hex digits.")
    auth_token_file: Path = Field(description="File with the account's auth token, which signs what Twilio tells us too.")
    from_: str = Field(alias="from", description="The number that calls: +815000000001")
    sms_from: str | None = Field(None, description="The number or name that short messages come from; absent: `from`.")
    url: HttpUrl = Field(HttpUrl("https://api.twilio.com"), description="Twilio's API.")
    ring_s: Annotated[int, Field(ge=5, le=600)] = Field(40, description="How long a telephone rings.")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(10, description="How long one attempt may take.")

    @field_validator("from_")
    @classmethod
    def _is_number(cls, number: str) -> str:
        if not is_number(number):
            raise ValueError(f"{number!r} is no number like +815000000001")
        return number

    @field_validator("sms_from")
    @classmethod
    def _is_sender(cls, sender: str | None) -> str | None:
        if sender is not None and not is_number(sender) and not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}", sender):
            raise ValueError(f"{sender!r} is neither a number like +815000000001 nor a name of at most 11 letters and digits")
        return sender


def is_number(text: str) -> bool:
    """Whether it is a telephone number as E.164 writes it: +815000000001."""
    return _NUMBER.fullmatch(text) is not None


def read_auth_token(config: TwilioConfig) -> str:
    """The account's secret. ConfigError when it can't be read."""
    token = read_secret_text(config.auth_token_file, "channel.twilio.auth_token_file").strip()
    if not token.isascii() or len(token.split()) != 1:
        raise ConfigError(f"channel.twilio.auth_token_file: {config.auth_token_file} holds no token")
    return token


class Account:
    """The account at Twilio, which `Sms` and `Voice` share. Safe from any thread."""

    def __init__(self, config: TwilioConfig, public_url: str) -> None:
        """`public_url`: the gateway as Twilio reaches it. ConfigError without the extra, or without its token."""
        self.config, self._public_url = config, public_url
        token = read_auth_token(config)
        try:
            from twilio.base.exceptions import TwilioException
            from twilio.http.response import Response
            from twilio.rest import Client
        except ImportError as error:
            raise ConfigError("channel.twilio: this gateway was installed without it: pip install 'satomori[voice]'") from error
        self._http = _Http(config, Response)
        self._error: type[Exception] = TwilioException
        # Its `environment` can't be empty, or it reads the real one: a variable there must not send us elsewhere.
        self.client: Any = Client(config.account_sid, token, http_client=self._http, environment={"SATOMORI": "1"})

    def hook(self, path: str, id_: str) -> str:
        """Where Twilio says or asks something about this notification."""
        return f"{self._public_url}{path}{quote(id_, safe='')}"

    def attempt(self, make: Callable[[], Any]) -> Outcome:
        """`make` creates a message or a call; what came of it."""
        try:
            return Delivered(str(make().sid))
        except _Busy as busy:
            return Retry(str(busy), busy.after_s)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return Retry(_said(error))
        except (httpx.HTTPError, ValueError) as error:  # it was handed over, and the answer was none
            return Unknown(_said(error))
        except self._error as error:
            return _refusal(error)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()


class _Busy(Exception):
    def __init__(self, reason: str, after_s: float | None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class _Http:
    """What Twilio's library sends its requests by: our timeouts, no proxies or passwords of the environment, no redirects."""

    def __init__(self, config: TwilioConfig, response: Callable[..., Any]) -> None:
        self._url, self._response = str(config.url).rstrip("/"), response
        self._client = httpx.Client(timeout=config.timeout_s, follow_redirects=False, trust_env=False)

    def request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002 - ours counts
        allow_redirects: bool = False,  # noqa: ARG002
    ) -> Any:
        """One request. _Busy where Twilio says later, httpx.HTTPError without an answer."""
        address = self._url + url.removeprefix("https://api.twilio.com")
        given = {name: value for name, value in (params or {}).items() if isinstance(value, str | int)}
        answer = self._client.request(method, address, params=given or None, data=dict(data or {}), headers=headers, auth=auth)
        if answer.status_code in (429, 503):
            after = answer.headers.get("retry-after", "")
            raise _Busy(
                f"answered {answer.status_code}", min(float(after[:9]), 3600) if after.isascii() and after.isdigit() else None
            )
        return self._response(answer.status_code, answer.text, answer.headers)

    def close(self) -> None:
        self._client.close()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_REASON]


def _refusal(error: Exception) -> Outcome:
    """What Twilio answered, by its own code. Its sentences name numbers, so the code stands for them."""
    status, code = getattr(error, "status", 0) or 0, getattr(error, "code", 0) or 0
    reason = f"answered {status}, Twilio's error {code}"
    if code in _NO_SUCH_NUMBER:
        return Gone(f"{reason}: this number can't be reached")
    if code in _BUSY or status == 500:
        return Retry(reason)
    if status > 500:
        return Unknown(reason)  # of something before Twilio's API, which may have passed it on
    if status in (401, 403) or code == 20003:
        return Retry(f"{reason}: check channel.twilio.account_sid and auth_token_file")
    return Refused(f"{reason}: https://www.twilio.com/docs/api/errors/{code}" if code else reason)


def _since(intent_us: int) -> datetime:
    return datetime.fromtimestamp(intent_us / 1e6 - LOOK_BACK_S, UTC)


# --- Short messages ---------------------------------------------------------------------------------


class Sms:
    """The channel `sms`."""

    knows_repetition = False

    def __init__(self, account: Account) -> None:
        self._account = account

    def send(self, id_: str, to: str, message: Message) -> Outcome:
        """One attempt."""
        if not is_number(to):
            return Gone("this is no telephone number")
        config = self._account.config
        return self._account.attempt(
            lambda: self._account.client.messages.create(
                to=to,
                from_=config.sms_from or config.from_,
                body=sms_text(message),
                status_callback=self._account.hook(STATUS, id_),
            )
        )

    def find(self, _id: str, to: str, message: Message, intent_us: int, taken: Callable[[str], bool]) -> Delivered | None:
        """The short message that an attempt begun then did make. By its text; a link in it is this notification's alone.

        Not by Twilio's own filter of days, for what still waits there has no date.
        """
        wanted, since = sms_text(message), _since(intent_us)
        for one in self._account.client.messages.list(to=to, limit=MOST_FOUND):
            if one.status in _NOT_TAKEN or (one.date_created is not None and one.date_created < since):
                continue
            same = one.body == wanted or (message.answer_url and message.answer_url in (one.body or ""))
            if same and not taken(str(one.sid)):
                return Delivered(str(one.sid))
        return None

    def close(self) -> None:
        """Closes the account's connections."""
        self._account.close()


def units(text: str) -> int:
    """UTF-16 code units, which is how short messages count what is not English."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def sms_text(message: Message) -> str:
    """Title, text and the link to answer, in at most 670 units: where it is too long, the text loses its end."""
    title, body, link = _plain(message.title, 200), _plain(message.body, MOST_SMS_UNITS), message.answer_url or ""
    room = MOST_SMS_UNITS - units(title) - (units(link) + 1 if link else 0) - 1
    return "\n".join(one for one in (title, _cut(body, room), link) if one)


def _plain(text: str, most: int) -> str:
    kept = "".join(one for one in text.encode(errors="replace").decode() if one.isprintable() or one == "\n")
    return _cut(kept.strip(), most)


def _cut(text: str, most: int) -> str:
    if units(text) <= most:
        return text
    used, kept = 1, []
    for one in text:
        used += units(one)
        if used > most:
            break
        kept.append(one)
    return "".join(kept) + "…" if most > 0 else ""


# --- Calls ------------------------------------------------------------------------------------------


class Voice:
    """The channel `voice`."""

    knows_repetition = False

    def __init__(self, account: Account, town: str) -> None:
        """`town`: who calls, as the call says it; empty: nobody is named."""
        self._account, self._town = account, town

    def send(self, id_: str, to: str, message: Message) -> Outcome:
        """One attempt. Delivered when Twilio has the call; whether somebody takes it, its status says later."""
        if not is_number(to):
            return Gone("this is no telephone number")
        config = self._account.config
        return self._account.attempt(
            lambda: self._account.client.calls.create(
                to=to,
                from_=config.from_,
                twiml=asking(message, self._town, self._account.hook(KEYPAD, id_), 1),
                status_callback=self._account.hook(STATUS, id_),
                status_callback_event=["initiated", "answered", "completed"],
                status_callback_method="POST",
                timeout=config.ring_s,
            )
        )

    def find(self, id_: str, to: str, _message: Message, intent_us: int, taken: Callable[[str], bool]) -> Delivered | None:
        """The call that an attempt begun then did make: one to this number whose hooks were asked about this notification.

        A call that is too young to have asked any hook is taken for it, too: nobody else's was begun for this number since.
        """
        since, ours = _since(intent_us), quote(id_, safe="")
        calls = self._account.client.calls
        for one in calls.list(to=to, from_=self._account.config.from_, limit=MOST_FOUND):
            if one.status in _NOT_TAKEN or (one.date_created is not None and one.date_created < since):
                continue
            asked = [str((event.request or {}).get("url", "")) for event in calls(one.sid).events.list(limit=MOST_FOUND)]
            if any(url.partition("?")[0].endswith(f"/{ours}") for url in asked):
                return Delivered(str(one.sid))
            young = one.date_created is None or one.date_created.timestamp() * 1e6 >= intent_us - 1_000_000
            if not asked and young and not taken(str(one.sid)):
                return Delivered(str(one.sid))
        return None

    def close(self) -> None:
        """Closes the account's connections."""
        self._account.close()


def call_words(message: Message, town: str) -> str:
    """All that a call says once: who calls, what is so, which keys there are."""
    said = speakable(message.spoken or f"{message.title}。{message.body}")
    offered = keypad([button.answer for button in message.buttons[:MOST_DIGITS]], message.language)
    if offered and offered in said:
        return said  # whoever wrote it has said the whole of it
    return speakable(spoken(town if not said.startswith(town) else "", said, _answers(message), message.language))


def _answers(message: Message) -> list[Any]:
    return [button.answer for button in message.buttons[:MOST_DIGITS]]


def speakable(text: str) -> str:
    """Without what a voice can't say, in one line."""
    kept = "".join(one if one.isprintable() else " " for one in text.encode(errors="replace").decode())
    return " ".join(kept.translate(_SIGNS).split())


_SIGNS = str.maketrans({"【": "", "】": "、", "〔": "", "〕": "、", "<": " ", ">": " ", "&": " "})


def voice_language(language: Language) -> str:
    """As a voice is chosen by."""
    return "en-US" if language == "en" else "ja-JP"


def asking(message: Message, town: str, keypad_url: str, round_: int, before: str = "") -> str:
    """The call's TwiML: what is so, twice, and then it waits for a key. Where nothing is asked, it is only said twice."""
    from twilio.twiml.voice_response import VoiceResponse

    words, language = call_words(message, town), voice_language(message.language)
    while True:
        response = VoiceResponse()
        into = response
        if message.buttons:
            into = response.gather(
                action=f"{keypad_url}?round={round_}",
                method="POST",
                num_digits=1,
                timeout=PATIENCE_S,
                action_on_empty_result=True,
            )
        if before:
            into.say(before, language=language)
        into.say(words, language=language)
        into.pause(length=1)
        into.say(words, language=language)
        if not message.buttons:
            response.hangup()
        twiml = str(response)
        if len(twiml) <= MOST_TWIML or len(words) < 20:
            return twiml
        words = _without_middle(words, message)


def _without_middle(words: str, message: Message) -> str:
    """Shorter by some, but the keys are always said."""
    offered = keypad(_answers(message), message.language)
    said = words.removesuffix(offered)
    return said[: len(said) - 100] + "。" + offered if len(said) > 150 else words[:19]


def saying(text: str, language: Language) -> str:
    """TwiML that says one thing and hangs up."""
    from twilio.twiml.voice_response import VoiceResponse

    response = VoiceResponse()
    response.say(speakable(text), language=voice_language(language))
    response.hangup()
    return str(response)
