"""What LINE takes in a push or a reply, and what it refuses: pure. Sizes and names as in its reference, April 2025.

It knows what the gateway may send (text, flex; box, button, text, separator) and refuses the rest as LINE
refuses what it does not know.
https://developers.line.biz/en/reference/messaging-api/
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

BUBBLE_BYTES = 30 * 1024
ALT_TEXT, TEXT, LABEL, POSTBACK, DISPLAY_TEXT, URI = 400, 5000, 20, 300, 300, 1000

Faults = list[tuple[str, str]]
"""(property, message)."""

_BUBBLE_SIZES = ("nano", "micro", "deca", "hecto", "kilo", "mega", "giga")
_SPACES = ("none", "xs", "sm", "md", "lg", "xl", "xxl")
_TEXT_SIZES = ("xxs", "xs", "sm", "md", "lg", "xl", "xxl", "3xl", "4xl", "5xl")
_PLACED = {"flex", "margin", "position", "offsetTop", "offsetBottom", "offsetStart", "offsetEnd"}
_PADDED = {"paddingAll", "paddingTop", "paddingBottom", "paddingStart", "paddingEnd", "spacing", "cornerRadius"}
_BOX = {"layout", "contents", "backgroundColor", "borderColor", "borderWidth", "width", "maxWidth", "height", "maxHeight",
        "action", "justifyContent", "alignItems", "background"} | _PADDED | _PLACED  # fmt: skip
_KNOWN = {
    "box": _BOX,
    "button": {"action", "height", "style", "color", "gravity", "adjustMode", "scaling"} | _PLACED,
    "text": {"text", "contents", "adjustMode", "size", "scaling", "align", "gravity", "wrap", "lineSpacing", "maxLines", "weight",
             "color", "action", "style", "decoration"} | _PLACED,
    "separator": {"margin", "color"},
}  # fmt: skip
"""The components that can be shown here, and their properties."""

_ACTIONS = {
    "postback": {"label", "data", "displayText", "inputOption", "fillInText"},
    "message": {"label", "text"},
    "uri": {"label", "uri", "altUri"},
}
_ENUMS = {
    ("box", "layout"): ("horizontal", "vertical", "baseline"),
    ("button", "style"): ("link", "primary", "secondary"),
    ("button", "height"): ("sm", "md"),
    ("text", "weight"): ("regular", "bold"),
    ("text", "align"): ("start", "end", "center"),
}
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?")
_LENGTH = re.compile(r"-?[0-9]+(\.[0-9]+)?(px|%)")


def request_faults(document: Mapping[str, Any], *, is_reply: bool = False) -> Faults:
    """What LINE would not take of a push or a reply, (property, message) each; an empty list: nothing."""
    faults: Faults = []
    whose = "replyToken" if is_reply else "to"
    for name in document:
        if name not in (whose, "messages", "notificationDisabled", "customAggregationUnits"):
            faults.append((name, "Unknown property"))
    if not isinstance(document.get(whose), str) or not document[whose]:
        faults.append((whose, "May not be empty"))
    messages = document.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= 5:
        return [*faults, ("messages", "Size must be between 1 and 5")]
    for number, message in enumerate(messages):
        faults += _message_faults(message, f"messages[{number}]")
    return faults


def _message_faults(message: object, at: str) -> Faults:
    if not isinstance(message, dict):
        return [(at, "Must be an object")]
    faults: Faults = []
    kind = message.get("type")
    if kind == "text":
        faults += _unknown(message, {"type", "text", "quickReply", "sender", "quoteToken"}, at)
        faults += _string(message, "text", TEXT, at)
    elif kind == "flex":
        faults += _unknown(message, {"type", "altText", "contents", "quickReply", "sender"}, at)
        faults += _string(message, "altText", ALT_TEXT, at)
        faults += _container(message.get("contents"), f"{at}.contents")
    else:
        return [(f"{at}.type", "Must be one of the following values: [text, flex]")]
    quick = message.get("quickReply")
    if quick is not None:
        items = quick.get("items") if isinstance(quick, dict) else None
        if not isinstance(items, list) or not 1 <= len(items) <= 13:
            return [*faults, (f"{at}.quickReply.items", "Size must be between 1 and 13")]
        for number, item in enumerate(items):
            where = f"{at}.quickReply.items[{number}]"
            if not isinstance(item, dict) or item.get("type") != "action":
                faults.append((where, "Must be an action"))
            else:
                faults += _action(item.get("action"), f"{where}.action", needs_label=True)
    return faults


def _container(contents: object, at: str) -> Faults:
    if not isinstance(contents, dict):
        return [(at, "May not be null")]
    if contents.get("type") == "carousel":
        bubbles = contents.get("contents")
        if not isinstance(bubbles, list) or not 1 <= len(bubbles) <= 12:
            return [(f"{at}.contents", "Size must be between 1 and 12")]
        return [fault for number, one in enumerate(bubbles) for fault in _container(one, f"{at}.contents[{number}]")]
    if contents.get("type") != "bubble":
        return [(f"{at}.type", "Must be one of the following values: [bubble, carousel]")]
    faults = _unknown(contents, {"type", "size", "direction", "header", "hero", "body", "footer", "styles", "action"}, at)
    if len(json.dumps(contents).encode()) > BUBBLE_BYTES:
        faults.append((at, f"Must be at most {BUBBLE_BYTES} bytes"))
    if contents.get("size", "mega") not in _BUBBLE_SIZES:
        faults.append((f"{at}.size", f"Must be one of the following values: [{', '.join(_BUBBLE_SIZES)}]"))
    blocks = [name for name in ("header", "body", "footer") if contents.get(name) is not None]
    if not blocks:
        faults.append((at, "At least one block must be specified"))
    for name in blocks:
        if not isinstance(contents[name], dict) or contents[name].get("type") != "box":
            faults.append((f"{at}.{name}", "Must be a box"))
        else:
            faults += _component(contents[name], f"{at}.{name}")
    return faults


def _component(one: object, at: str, depth: int = 0) -> Faults:
    if not isinstance(one, dict) or one.get("type") not in _KNOWN:
        return [(f"{at}.type", f"Must be one of the following values: [{', '.join(_KNOWN)}]")]
    kind = one["type"]
    faults = [*_unknown(one, _KNOWN[kind] | {"type"}, at), *_style(one, kind, at)]
    if kind == "button":
        return [*faults, *_action(one.get("action"), f"{at}.action", needs_label=True)]
    if kind == "text" and one.get("contents") is None:
        return [*faults, *_string(one, "text", BUBBLE_BYTES, at)]
    if kind == "box":
        contents = one.get("contents")
        if not isinstance(contents, list) or depth > 10:
            return [*faults, (f"{at}.contents", "May not be null, nor too deep")]
        for number, inner in enumerate(contents):
            faults += _component(inner, f"{at}.contents[{number}]", depth + 1)
    return faults


def _style(one: Mapping[str, Any], kind: str, at: str) -> Faults:
    faults: Faults = []
    for (whose, name), values in _ENUMS.items():
        needed = one.get(name) is not None or (whose, name) == ("box", "layout")
        if whose == kind and needed and one.get(name) not in values:
            faults.append((f"{at}.{name}", f"Must be one of the following values: [{', '.join(values)}]"))
    for name, value in one.items():
        sizes = _SPACES if name in _PADDED or name == "margin" else _TEXT_SIZES if name == "size" else None
        if name.lower().endswith("color") and not (isinstance(value, str) and _COLOUR.fullmatch(value)):
            faults.append((f"{at}.{name}", "Must be a color code"))
        elif sizes and not (isinstance(value, str) and (value in sizes or _LENGTH.fullmatch(value))):
            faults.append((f"{at}.{name}", "Must be a size"))
    return faults


def _action(action: object, at: str, *, needs_label: bool) -> Faults:
    if not isinstance(action, dict) or action.get("type") not in _ACTIONS:
        return [(at, f"Must be one of the following values: [{', '.join(_ACTIONS)}]")]
    kind = action["type"]
    faults = _unknown(action, _ACTIONS[kind] | {"type"}, at)
    if needs_label or action.get("label") is not None:
        faults += _string(action, "label", LABEL, at)
    if kind == "postback":
        faults += _string(action, "data", POSTBACK, at)
        if action.get("displayText") is not None:
            faults += _string(action, "displayText", DISPLAY_TEXT, at)
    elif kind == "message":
        faults += _string(action, "text", 300, at)
    else:
        faults += _string(action, "uri", URI, at)
        if urlsplit(str(action.get("uri", ""))).scheme not in ("http", "https", "line", "tel"):
            faults.append((f"{at}.uri", "Must be one of the following schemes: [http, https, line, tel]"))
    return faults


def _unknown(one: Mapping[str, Any], known: set[str], at: str) -> Faults:
    return [(f"{at}.{name}", "Unknown property") for name in one if name not in known]


def _string(one: Mapping[str, Any], name: str, most: int, at: str) -> Faults:
    value = one.get(name)
    if not isinstance(value, str) or not value.strip():
        return [(f"{at}.{name}", "May not be empty")]
    if len(value.encode("utf-16-le", "surrogatepass")) // 2 > most:
        return [(f"{at}.{name}", f"Length must be between 0 and {most}")]
    return []
