"""What is wrong in a configuration, in plain words: pydantic's faults turned into sentences, and nothing else. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.contract.names import NAME_PATTERN

Schema = Mapping[str, Any]

NAME_RULE = "1 to 32 of a-z, 0-9 and '-'"
_SHOWN = 60  # as much of what somebody wrote as is said back
_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that TOML lets stand without quotes
_BENEATH = re.compile(r"([a-z0-9_-]+)((?:\.[a-z0-9_-]+)*): ")
_KINDS = {
    "integer": "a whole number", "number": "a number", "string": "a text in quotes", "boolean": "true or false",
    "array": "a list in [ ]", "object": "a table of settings",
}  # fmt: skip
_WRONG_TYPE = ("_type", "_parsing", "_from_float", "greater_than", "less_than", "greater_than_equal", "less_than_equal")


def plain(model: type[BaseModel], error: ValidationError, within: str = "") -> list[str]:
    """One line a fault of a document that is no `model`: `device.trap-11.pin: is missing`.

    The path is the one in the file, beneath `within`. A validator's own words follow it; where they begin with a setting of the
    place they are about (`url: ...`, in a list its number), that belongs to the path.
    """
    whole = model.model_json_schema()
    lines = [_line(whole, within, fault) for fault in error.errors(include_url=False)]
    return list(dict.fromkeys(lines))


def _line(whole: Schema, within: str, fault: Mapping[str, Any]) -> str:
    location = list(fault["loc"])
    kind, context = fault["type"], fault.get("ctx", {})
    of_key = len(location) > 1 and location[-1] == "[key]"  # the name of a table is wrong, not what it holds
    if of_key:
        location.pop()
    path, place, around = [within] if within else [], _resolved(whole, whole), whole
    for part in location:
        if part in place.get("discriminator", {}).get("mapping", {}):  # which kind it is stands in `type`, not in the path
            place = _resolved(whole, {"$ref": place["discriminator"]["mapping"][part]})
            continue
        path.append(_key(part))
        around, place = place, _resolved(whole, _beneath(place, part))
    if of_key:
        text = _no_name(context, fault["input"]) or f"can't be named so: {_sentence(fault['msg'])}"
    elif kind in ("value_error", "assertion_error"):
        text = str(context["error"])
        beneath = _BENEATH.match(text)
        if beneath and (beneath[1] in place.get("properties", {}) or (beneath[1].isdigit() and place.get("type") == "array")):
            path.append(beneath[1] + beneath[2])
            text = text[beneath.end() :]
    elif kind == "union_tag_not_found":
        path.append("type")
        text = f"is missing; it is one of {_listed(_tags(place))}"
    elif kind == "union_tag_invalid":
        path.append("type")
        text = _none_of(context["tag"], _tags(place))
    elif kind == "extra_forbidden":
        text = _no_setting(location[-1], list(around.get("properties", {})))
    else:
        text = _said(kind, context, place, fault)
    return f"{'.'.join(path)}: {text}" if path else text


def _said(kind: str, context: Mapping[str, Any], place: Schema, fault: Mapping[str, Any]) -> str:
    """What is wrong with one value."""
    value = fault["input"]
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return _none_of(value, place.get("enum", [place.get("const")]))
    if kind == "string_pattern_mismatch":
        return _no_name(context, value) or f"{_shown(value)} is not as it must be: {place.get('description', context['pattern'])}"
    if kind in ("too_short", "string_too_short"):
        least, what = context["min_length"], "character" if kind.startswith("string") else "entry"
        return f"is empty; it needs at least {least} {what}" if not value else f"is too short; it needs at least {least}"
    if kind in ("too_long", "string_too_long"):
        return f"is too long; it may have at most {context['max_length']}"
    if kind == "finite_number" or kind.endswith(_WRONG_TYPE):
        return f"must be {_wanted(place)}; it is {_shown(value)}"
    return _sentence(fault["msg"])


def _wanted(place: Schema) -> str:
    """`a whole number from 0 to 27`."""
    if "enum" in place:
        return f"one of {_listed(place['enum'])}"
    kind = _KINDS.get("object" if "discriminator" in place else place.get("type", ""), "something else")
    least, most = place.get("minimum", place.get("ge")), place.get("maximum", place.get("le"))
    above, below = place.get("exclusiveMinimum", place.get("gt")), place.get("exclusiveMaximum", place.get("lt"))
    if least is not None and most is not None:
        return f"{kind} from {_number(least)} to {_number(most)}"
    bounds = (("of at least", least), ("above", above), ("of at most", most), ("below", below))
    return " ".join([kind, " and ".join(f"{word} {_number(bound)}" for word, bound in bounds if bound is not None)]).strip()


def _no_setting(name: object, settings: Sequence[str]) -> str:
    near = get_close_matches(str(name), settings, 1)
    if near:
        return f"there is no such setting; did you mean `{near[0]}`?"
    return f"there is no such setting; there are {_listed(settings)}" if settings else "there is no such setting"


def _none_of(value: object, known: Sequence[object]) -> str:
    near = get_close_matches(str(value), [str(one) for one in known], 1)
    # The hint first: a report to the gateway may be cut at its end.
    return f"there is no {_shown(value)}; " + (f"did you mean {near[0]}? It" if near else "it") + f" is one of {_listed(known)}"


def _no_name(context: Mapping[str, Any], value: object) -> str | None:
    """The rule of names in words; None where the pattern is another."""
    if context.get("pattern") != NAME_PATTERN.replace(r"\Z", "$"):
        return None
    return f"{_shown(value)} is no name; a name has {NAME_RULE}"


def _resolved(whole: Schema, place: Schema) -> Schema:
    """The schema itself: behind a reference, and without the `null` of a setting that may be absent."""
    described = place.get("description")
    while True:
        if "$ref" in place:
            place = whole["$defs"][place["$ref"].rpartition("/")[2]]
        elif "anyOf" in place:
            place = next((one for one in place["anyOf"] if one.get("type") != "null"), {})
        else:
            return {**place, "description": described} if described else place


def _beneath(place: Schema, part: int | str) -> Schema:
    """The schema of one part of what `place` is. An item is described by its list."""
    if isinstance(part, int):
        beneath = place.get("items", {})
        return {"description": place["description"], **beneath} if "description" in place else beneath
    # A table of named things: its names have a pattern, or none.
    named = (*place.get("patternProperties", {}).values(), place.get("additionalProperties"))
    return next((one for one in (place.get("properties", {}).get(part), *named) if isinstance(one, Mapping)), {})


def _tags(place: Schema) -> list[str]:
    return list(place.get("discriminator", {}).get("mapping", {}))


def _key(part: int | str) -> str:
    """As TOML writes it."""
    text = str(part)
    return text if _BARE.fullmatch(text) else _quoted(text[:_SHOWN])


def _quoted(text: str) -> str:
    said = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in said)


def _shown(value: object) -> str:
    """As TOML writes it, and not too much of it."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = _quoted(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names))


def _number(bound: float) -> str:
    return f"{bound:.10g}"


def _sentence(message: str) -> str:
    """What pydantic says of something that has no words here yet."""
    message = message.removeprefix("Input should ")
    return "must " + message if message.startswith("be ") else message[:1].lower() + message[1:]
