"""What one person is told once: a Message, as it stands in a notification's `body`, and the answers they can give to it.

It is words and buttons, ready in the person's language; each channel shapes it its own way (a LINE Flex message, a mail, a
spoken sentence) and adds nothing of its own to what it says.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Kind = Literal[
    "alert",  # something has happened: the first word of a page to this contact
    "again",  # asked anew: nobody, or too few, answered
    "update",  # who goes, that one more is needed, that more alerts joined
    "result",  # you said that you go: what came of it?
    "over",  # it is over: found, reset, visited
    "picture",  # what was told as text has its picture now: in silence, and never instead of anything
    "digest",  # what was not urgent, collected
    "test",  # the proof that a contact can be reached, and the daily canary
    "reply",  # the answer to what somebody wrote to us
    "office",  # what the office must know: nobody reachable, a contact lost
]

Answer = Literal["going", "cannot", "with_her", "false_alarm", "search", "found", "done", "seen", "animal", "no_animal", "bear"]
"""What a person can say to a message. `seen`: only that they have read it, which ends no asking but proves the contact."""

Severity = Literal["critical", "warning", "info"]
Language = Literal["ja", "ja-easy", "en"]

_frozen = ConfigDict(extra="forbid", frozen=True)


class Button(BaseModel):
    """One answer to choose."""

    model_config = _frozen

    answer: Answer
    label: Annotated[str, Field(min_length=1, max_length=20)]  # LINE's limit for an action's label


class Link(BaseModel):
    """Something to open: a map, a telephone number, the trap's page."""

    model_config = _frozen

    label: Annotated[str, Field(min_length=1, max_length=20)]
    url: Annotated[str, Field(max_length=1000)]  # https:// or tel:


class Message(BaseModel):
    """One message to one person. Stored as JSON, so every field has its default for rows of before it was there."""

    model_config = _frozen

    id: str
    kind: Kind = "alert"
    severity: Severity = "warning"
    language: Language = "ja"
    title: str
    body: str
    spoken: str = ""
    """For a voice call: whole sentences without signs. Empty: title and body are read."""
    buttons: tuple[Button, ...] = ()
    links: tuple[Link, ...] = ()
    answer_url: str | None = None
    """The signed page where the same answers can be given without an account, or a picture seen; None where neither is."""
    page: str | None = None
    alert: str | None = None
    late: bool = False
    over: bool = False
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """For machines (a webhook): rule, kind, node, device, place, label, event_time, alert_time."""

    def for_machines(self) -> dict[str, Any]:
        """As one flat JSON object: what a webhook gets."""
        shown = self.model_dump(mode="json", exclude={"data"}, exclude_defaults=False)
        return {**shown, **self.data}
