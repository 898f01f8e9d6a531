"""line: a message as a LINE Flex message, by push or, while its token lasts, by reply. https://developers.line.biz/en/reference/messaging-api/

What LINE answers becomes an outcome here and nowhere else. LINE answers 200 also for somebody who blocked us: that a person
can't be reached is heard from the webhook (`unfollow`), never from sending.
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator

from gateway.errors import ConfigError
from gateway.notify.message import Message
from gateway.notify.outcome import Delivered, Gone, NoQuota, Outcome, Refused, Retry
from gateway.notify.quota import Quota
from gateway.secret_files import read_secret_text

ALT_TEXT, LABEL, POSTBACK, TEXT = 400, 20, 300, 5000
"""The longest that LINE takes, in UTF-16 code units (labels and postback data: in characters)."""

TITLE, BODY, LINKS = 300, 2400, 6
"""Our own limits, so that a bubble, each sign of which JSON may spell with six bytes, stays under LINE's 30 KB."""

MOST_CONNECTIONS = 20
"""Kept open: as many as the deliverer has attempts at once, and some for replies. More would be made anew for each message."""

REPLY_WITHIN_US = 50_000_000
"""LINE lets a reply token live for a minute."""

_COLOURS = {"critical": "#B3261E", "warning": "#8A5A00", "info": "#1F5FA8"}
_OVER = "#5F6368"
_BODY_TEXT = "#1C1B1F"
_KEYS = uuid.UUID("0c5b2f7e-7f0b-5a38-9a60-0f2f0a5f2f11")
_REASON = 300
_FINAL = frozenset((400, 413, 415))  # said of this very message
_USER = re.compile(r"U[0-9a-f]{32}")


class LineConfig(BaseModel):
    """`[channel.line]`: the town's LINE Official Account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel_secret_file: Path = Field(description="File with the channel secret, which signs what LINE sends us.")
    access_token_file: Path = Field(description="File with the channel access token.")
    friend_url: HttpUrl | None = Field(
        None, description="Where the account is added as a friend: https://lin.ee/...; for the QR."
    )
    reserve: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="The share of the month's messages that is kept for what is critical."
    )
    url: HttpUrl = Field(HttpUrl("https://api.line.me"), description="The Messaging API.")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(10, description="How long one attempt may take.")

    @field_validator("url")
    @classmethod
    def _is_a_host(cls, url: HttpUrl) -> HttpUrl:
        if url.path not in (None, "", "/") or url.query or url.fragment:
            raise ValueError(f"{url} is more than https://host")
        return url


def read_word(path: Path, setting: str) -> str:
    """The one word in the file. ConfigError naming `setting` otherwise."""
    secret = read_secret_text(path, f"channel.line.{setting}").strip()
    if not secret or len(secret.split()) != 1 or not secret.isascii():
        raise ConfigError(f"channel.line.{setting}: {path} must hold one word, as LINE's console shows it, and nothing else")
    return secret


class Line:
    """The account. A repeated id is told by its retry key, for 24 hours."""

    knows_repetition = True

    def __init__(self, config: LineConfig, quota: Quota, now_us: Callable[[], int]) -> None:
        """ConfigError when the access token can't be read."""
        # Takes a second: only who has an account pays for it.
        from linebot.v3 import messaging

        token = read_word(config.access_token_file, "access_token_file")
        self._sdk, self._quota, self._now_us, self._timeout_s = messaging, quota, now_us, config.timeout_s
        settings = messaging.Configuration(access_token=token)
        settings.retries = False  # who repeats an attempt, and when, is the deliverer's
        settings.connection_pool_maxsize = MOST_CONNECTIONS
        self._client = messaging.ApiClient(settings)
        self._api = messaging.MessagingApi(self._client)
        self._api.line_base_path = str(config.url).rstrip("/")

    def send(self, id_: str, to: str, message: Message) -> Outcome:
        """One attempt. As a free reply where the message answers somebody within a minute, else as a push."""
        token, until_us = message.data.get("reply_token"), message.data.get("reply_until_us")
        if isinstance(token, str) and isinstance(until_us, int) and self._now_us() < until_us:
            return self.reply(token, message)
        if not self._quota.allows(self._now_us(), critical=message.severity == "critical"):
            return NoQuota("LINE: what is left of this month's messages is kept for what is critical")
        outcome = self._outcome(
            lambda: self._api.push_message_with_http_info(
                self._sdk.PushMessageRequest(
                    to=to, messages=[self._shaped(message)], notificationDisabled=message.kind == "picture"
                ),
                x_line_retry_key=retry_key(id_),
                _request_timeout=self._timeout_s,
            )
        )
        if isinstance(outcome, Delivered):
            self._quota.spent(self._now_us())
        return outcome

    def reply(self, token: str, message: Message) -> Outcome:
        """Answers with the token of what somebody wrote. It costs nothing, and a token can be used once."""
        outcome = self._outcome(
            lambda: self._api.reply_message_with_http_info(
                self._sdk.ReplyMessageRequest(replyToken=token, messages=[self._shaped(message)]),
                _request_timeout=self._timeout_s,
            )
        )
        # Nobody else has this token, and it has not run out: an earlier attempt, whose answer was lost, has used it.
        used = isinstance(outcome, Refused) and "invalid reply token" in outcome.reason.lower()
        return Delivered() if used else outcome

    def usage(self) -> tuple[int | None, int]:
        """What may be sent this month (None: no limit) and what was, as LINE says. OSError when it can't be asked."""
        found: list[tuple[int | None, int]] = []

        def ask() -> Any:
            quota = self._api.get_message_quota_with_http_info(_request_timeout=self._timeout_s)
            used = self._api.get_message_quota_consumption_with_http_info(_request_timeout=self._timeout_s)
            limit = quota.data.value if str(getattr(quota.data.type, "value", quota.data.type)) == "limited" else None
            found.append((None if limit is None else int(limit), int(used.data.total_usage)))
            return quota

        outcome = self._outcome(ask)
        if not found:
            raise OSError(getattr(outcome, "reason", "LINE gave no answer"))
        return found[0]

    def close(self) -> None:
        """Closes the connections."""
        self._client.rest_client.pool_manager.clear()
        self._client.close()

    def _shaped(self, message: Message) -> Any:
        return self._sdk.Message.from_dict(shaped(message))

    def _outcome(self, call: Callable[[], Any]) -> Outcome:
        import urllib3  # comes with the SDK

        try:
            response = call()
        except self._sdk.ApiException as error:
            return outcome_of(int(error.status or 0), error.headers or {}, error.body)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Retry(f"LINE: {type(error).__name__}"[:_REASON])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            # What came back is nothing that LINE would say; the retry key makes it safe to ask again.
            return Retry(f"LINE: an answer that can't be read ({type(error).__name__}): check channel.line.url")
        sent = getattr(response.data, "sent_messages", None)
        return Delivered(str(sent[0].id)) if sent else Delivered()


def outcome_of(status: int, headers: Mapping[str, str], body: bytes | str | None) -> Outcome:
    """What an answer other than 2xx means. `body` is JSON {message, details: [{message, property}]}, or anything."""
    said, sent = _said(body)
    reason = _USER.sub("U...", f"LINE answered {status}: {said}" if said else f"LINE answered {status}")[:_REASON]
    after = headers.get("retry-after", "") or ""
    after_s = min(float(after), 3600.0) if after.isascii() and after.isdigit() else None
    if status == 409:
        return Delivered(sent)
    if status == 429:
        return NoQuota(reason) if "monthly limit" in said.lower() else Retry(reason, after_s or 10.0)
    if status in (401, 403):
        return Retry(f"{reason}: check channel.line.access_token_file"[:_REASON])
    if status == 400 and "'to'" in said:
        return Gone("LINE does not know this user: the id is of another account")
    if status in _FINAL:
        return Refused(reason)
    return Retry(reason if status >= 500 else f"{reason}: check channel.line.url"[:_REASON], after_s)


def _said(body: bytes | str | None) -> tuple[str, str | None]:
    """The message with its details in one line, and the id of the message that was sent already."""
    try:
        document = json.loads(body or b"")
        details = document.get("details") or []
        parts = [str(document.get("message", "")), *(f"{one.get('property')}: {one.get('message')}" for one in details)]
        sent = document.get("sentMessages") or [{}]
        return "; ".join(part for part in parts if part), sent[0].get("id")
    except (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError):
        return "", None


def retry_key(id_: str) -> str:
    """LINE wants a UUID: the notification's own id, or one made of it."""
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        return str(uuid.uuid5(_KEYS, id_))


def postback(answer: str, id_: str) -> str:
    """What LINE sends back when a button is pressed. It needs no signature: LINE signs what comes, and says whose it is."""
    return urlencode({"a": answer, "n": id_})


def read_postback(data: str) -> tuple[str, str] | None:
    """The answer and the notification's id; None for what is none of our buttons."""
    fields = dict(parse_qsl(data[:POSTBACK], max_num_fields=10) if data.count("&") < 10 else ())
    return (fields["a"], fields["n"]) if fields.keys() >= {"a", "n"} and "\0" not in fields["n"] else None


def cut(text: str, units: int) -> str:
    """At most so many UTF-16 code units, which is what LINE counts; what is cut off is shown as cut off."""
    if len(text.encode("utf-16-le", "surrogatepass")) // 2 <= units:
        return text
    left, kept = units - 1, []
    for sign in text:
        left -= 2 if ord(sign) > 0xFFFF else 1
        if left < 0:
            break
        kept.append(sign)
    return "".join(kept) + "…"


def shaped(message: Message) -> dict[str, Any]:
    """The message as LINE's JSON: plain text for a few words in a conversation, else a bubble with its buttons."""
    # Blanks alone are nothing to LINE.
    message = message.model_copy(update={"title": message.title.strip(), "body": message.body.strip()})
    if message.kind == "reply" and not message.buttons and not message.links:
        words = "\n".join(part for part in (message.title, message.body) if part)
        return {"type": "text", "text": cut(words or "…", TEXT), **_quick(message)}
    alt = cut(" ".join(part for part in (message.title, message.body) if part) or "…", ALT_TEXT)
    return {"type": "flex", "altText": alt, "contents": _bubble(message), **_quick(message)}


def _quick(message: Message) -> dict[str, Any]:
    """Answers to choose from, which the person then says: `data.quick` is a list of [label, text]."""
    quick = message.data.get("quick")
    if not isinstance(quick, list) or not quick:
        return {}
    pairs = [(str(pair[0]), str(pair[1])) for pair in quick[:13] if isinstance(pair, list) and len(pair) == 2]
    items = [
        {"type": "action", "action": {"type": "message", "label": label[:LABEL], "text": cut(text, 300)}} for label, text in pairs
    ]
    return {"quickReply": {"items": items}}


def _bubble(message: Message) -> dict[str, Any]:
    # `scaling`: who has large signs on the phone gets large signs here.
    def text(words: str, **style: object) -> dict[str, Any]:
        return {"type": "text", "text": words, "wrap": True, "scaling": True, **style}

    def box(*contents: dict[str, Any], **style: object) -> dict[str, Any]:
        return {"type": "box", "layout": "vertical", "contents": list(contents), **style}

    title, body = cut(message.title, TITLE), cut(message.body, BODY)
    colour = _OVER if message.over or message.kind == "over" else _COLOURS[message.severity]
    bubble: dict[str, Any] = {"type": "bubble", "size": "mega"}
    if title:
        header = text(title, weight="bold", size="lg", color="#FFFFFF")
        bubble["header"] = box(header, backgroundColor=colour, paddingAll="lg")
    if body or not title:
        bubble["body"] = box(text(body or "…", size="md", color=_BODY_TEXT), paddingAll="lg")
    actions = [
        {"type": "postback", "label": one.label, "data": postback(one.answer, message.id), "displayText": one.label}
        for one in message.buttons
    ]
    rows = [
        {
            "type": "button",
            "action": action,
            "style": "primary" if not number else "secondary",
            **({} if number else {"color": colour}),
            "height": "md",
            "scaling": True,
        }
        for number, action in enumerate(actions)
    ]
    rows += [
        {
            "type": "button",
            "action": {"type": "uri", "label": link.label, "uri": link.url},
            "style": "link",
            "height": "sm",
            "scaling": True,
        }
        for link in message.links[:LINKS]
    ]
    if rows:
        bubble["footer"] = box(*rows, spacing="sm", paddingAll="lg")
    return bubble
