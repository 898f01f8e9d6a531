"""All that people read in a message, on an answer page or in a refusal, in every language. Only the wording is decided here.

`words(language, "page.going", ...)` gives a moment's title, body and spoken sentence out of the catalogues; `alert_words` chooses
the moment of an alert. A new sentence is an id in each of `locale/*/messages.po`, and a line of code that says it.
"""

from gateway.words.alert import about_tag, alert_words
from gateway.words.answers import acknowledged, button, buttons_for, keypad, not_taken, spoken
from gateway.words.catalogue import LANGUAGES, call_office, has, office_in, text
from gateway.words.moments import Words, over, special, words
from gateway.words.times import clock, lasting, moment, span

__all__ = [
    "LANGUAGES",
    "Words",
    "about_tag",
    "acknowledged",
    "alert_words",
    "button",
    "buttons_for",
    "call_office",
    "clock",
    "has",
    "keypad",
    "lasting",
    "moment",
    "not_taken",
    "office_in",
    "over",
    "span",
    "special",
    "spoken",
    "text",
    "words",
]
