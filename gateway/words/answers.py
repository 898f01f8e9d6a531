"""The words around answers: buttons, what a keypad offers, what is said back."""

from collections.abc import Mapping, Sequence

from gateway.notify.message import Answer, Button, Kind, Language
from gateway.words.catalogue import has, text

_ASKED: dict[str, tuple[Answer, ...]] = {
    "trap": ("going", "cannot"),
    "watched": ("with_her", "going", "search"),
    "camera": ("animal", "no_animal", "bear"),
    "gateway": ("seen",),
}
_RESULT: dict[str, tuple[Answer, ...]] = {
    "trap": ("done", "false_alarm", "cannot"),
    "watched": ("with_her", "found", "search"),
}
_SEARCH: Mapping[str, tuple[Answer, ...]] = {"search": ("found", "search"), "search_help": ("going", "cannot")}
"""Family and office say how it goes on; everybody else, whether they help."""


def buttons_for(kind_of_alert: str, message: Kind, language: Language) -> tuple[Button, ...]:
    """The answers that a message offers, in the order in which a keypad counts them; none where nothing is asked.

    `kind_of_alert` is the alert's kind; `search` is that of a search case to family and office,
    `search_help` to everybody else, `test` that of the canary and of tests.
    """
    answers: tuple[Answer, ...] = ()
    if message == "test" or kind_of_alert == "test":
        answers = ("seen",)
    elif message in ("alert", "again", "update"):
        answers = _SEARCH.get(kind_of_alert, _ASKED.get(kind_of_alert, ("going", "cannot")))
    elif message == "result":
        answers = _SEARCH.get(kind_of_alert, _RESULT.get(kind_of_alert, ("done", "false_alarm", "cannot")))
    elif message == "office":
        answers = ("going",)
    return tuple(Button(answer=answer, label=button(answer, language, kind_of_alert)) for answer in answers)


def button(answer: Answer, language: Language, kind: str | None = None) -> str:
    """What a button for this answer says, at most 20 characters."""
    own = f"button.{answer}.{kind}"
    return text(language, own if kind is not None and has(own) else f"button.{answer}")


def acknowledged(answer: Answer, language: Language, kind: str | None = None) -> str:
    """What is said back to who gave this answer."""
    own = f"answered.{answer}.{kind}"
    return text(language, own if kind is not None and has(own) else f"answered.{answer}")


def not_taken(reason: str, language: Language) -> str:
    """Why an answer could not be taken: closed, not_told, not_asked; anything else is `unknown`."""
    return text(language, f"not_taken.{reason}" if has(f"not_taken.{reason}") else "not_taken.unknown")


def keypad(answers: Sequence[Answer], language: Language) -> str:
    """行ける方は1を、行けない方は2を押してください。 Digits count the answers from 1; empty where there are none."""
    choices = [text(language, f"voice.choice.{answer}", digit=str(digit)) for digit, answer in enumerate(answers, 1)]
    return text(language, "voice.choices", choices=text(language, "voice.and").join(choices)) if choices else ""


def spoken(town: str, said: str, answers: Sequence[Answer], language: Language) -> str:
    """A whole call: 里山市です。北尾根、3番のわなが動きました。行ける方は1を、行けない方は2を押してください。"""
    sentences = [text(language, "voice.from", town=town)] if town else []
    sentences += [one for one in (said, keypad(answers, language)) if one]
    return (" " if language == "en" else "").join(sentences)


__all__ = ["acknowledged", "button", "buttons_for", "keypad", "not_taken", "spoken"]
