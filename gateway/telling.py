"""From what is planned to be said to a Message: words, buttons, and what machines want to know. No database, no decision.

Every sentence comes from `gateway.words`.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from gateway.alerting.escalation import Tell, Waited
from gateway.alerting.lifecycle import Alert
from gateway.contacts.person import Person
from gateway.deployments import Deployments
from gateway.notify.message import Button, Language, Link, Message, Severity
from gateway.words import Words, about_tag, alert_words, buttons_for, spoken, text, words
from gateway.words.moments import without_waiting

log = logging.getLogger(__name__)

MAP_URL = "https://maps.gsi.go.jp"
"""The map of the Geospatial Information Authority of Japan: free, and it knows mountain paths."""
LINES = 12
"""A list of more alerts than this is cut, and says how many more there are."""
_GOING = frozenset(("going", "cannot"))
PERSONAL = frozenset(("watched", "search", "search_help", "consent", "label"))
"""Kinds of alerts and pages that are about a person: a machine hears neither who nor where."""
_DIGESTS: Mapping[Waited | None, str] = {
    None: "page.digest",
    "digest": "page.digest",
    "outage": "page.digest_outage",
    "quiet": "page.digest_quiet",
}


class About(NamedTuple):
    """What a message is about."""

    page: str
    kind: str
    severity: Severity
    opened_us: int
    alerts: Sequence[Alert]
    """The page's alerts that may speak, the first that joined before the others; all of them where it is over."""
    names: Sequence[str] = ()
    """Of the people whom the message names."""
    when_us: int | None = None
    """When they said it, or when it ended."""
    facts: Mapping[str, Any] = {}
    """Of a moment that another room tells; or more than the first alert holds."""


class Teller:
    """Safe on many threads."""

    def __init__(
        self,
        deployments: Deployments,
        zone: ZoneInfo,
        *,
        town: str = "",
        answer_url: Callable[[str, int], str] | None = None,
        link_for_s: int = 86_400,
        links_for: Callable[[Person, "About", int], Sequence[Link]] = lambda _person, _about, _now_us: (),
        visit_url: Callable[[str, str, int], str] | None = None,
        phone: str | None = None,
    ) -> None:
        """`answer_url(notification, expires_us)`: the signed page with the same answers. `town`: who calls by telephone.

        `links_for(person, about, now_us)`: what a message offers to open. `phone`: the office's, for who is asked to go.
        `visit_url(node, device, printed)`: the page that a trap's QR opens, where a visit is recorded.
        """
        self._deployments, self.zone, self._town = deployments, zone, town
        self._answer_url, self._link_for_us, self._links_for = answer_url, link_for_s * 1_000_000, links_for
        self._visit_url, self._phone = visit_url, phone

    def message(self, id_: str, person: Person, tell: Tell, about: About, now_us: int) -> Message:
        """The message to this person. A fact that a sentence lacks costs the sentence, never the message.

        LookupError where there are neither words for the moment nor an alert to speak of instead.
        """
        language = person.language
        if about.kind in PERSONAL and any(address.channel == "webhook" for address in person.addresses):
            withheld = text(language, "part.withheld")
            about = about._replace(facts={**about.facts, "name": None, "who": None, "place": withheld, "seen_us": None})
        if tell.moment == "alert":
            said = self._of_alerts(about, language, now_us)
            if tell.names and tell.missing:
                more = self._moment("page.more", tell, about, language, now_us)
                said = said._replace(body=f"{without_waiting(said.body, language)}{_gap(language)}{more.body}")
        else:
            try:
                said = self._moment(tell.moment, tell, about, language, now_us)
            except LookupError:
                if not about.alerts:
                    raise
                log.exception("page %s: %s is told as the alert itself", about.page, tell.moment)
                said = self._of_alerts(about, language, now_us)
        buttons = _buttons(tell, about.kind, language)
        first = about.alerts[0] if about.alerts else None
        links = (
            *self._for_the_way(about, language, asked=bool(buttons)),
            *self._for_the_record(tell, about, language),
            *self._links_for(person, about, now_us),
        )
        page_url = self._answer_url(id_, now_us + self._link_for_us) if self._answer_url else None
        if page_url is not None and any('"media":' in alert.facts for alert in about.alerts):
            links = (Link(label=text(language, "link.picture"), url=page_url), *links)  # text goes first, the picture is there
        return Message(
            id=id_,
            kind=tell.kind,
            severity=about.severity,
            language=language,
            title=said.title,
            body=said.body,
            spoken=spoken(
                self._town, said.spoken or f"{said.title}{_stop(said.title, language)}{said.body}", _answers(buttons), language
            ),
            buttons=buttons,
            links=links,
            answer_url=page_url if buttons or tell.kind == "picture" else None,
            page=about.page,
            alert=first.id if first and len(about.alerts) == 1 else None,
            late=any(alert.late for alert in about.alerts),
            data={"message": tell.kind, **(self._data(first, now_us) if first else {"kind": about.kind})},
        )

    def _for_the_way(self, about: About, language: Language, *, asked: bool) -> Iterator[Link]:
        """What somebody needs who may have to go there: where it is, and whom to ring."""
        places = {self._deployments.of(alert.node, alert.device).at for alert in about.alerts}
        if len(places) == 1 and (at := places.pop()) is not None:
            yield Link(label=text(language, "link.map"), url=f"{MAP_URL}/#16/{at[0]:.6f}/{at[1]:.6f}/")
        if asked and self._phone:
            yield Link(label=text(language, "link.phone"), url=f"tel:{self._phone}")

    def _for_the_record(self, tell: Tell, about: About, language: Language) -> Iterator[Link]:
        """Of a trap: where the visit is recorded, for who is asked what came of it; where a capture's papers are filled in."""
        traps = {(alert.node, alert.device) for alert in about.alerts}
        if self._visit_url is None or about.kind != "trap" or len(traps) != 1:
            return
        node, device = traps.pop()
        url = self._visit_url(node, device, self._deployments.of(node, device).qr)
        capture = json.loads(about.alerts[0].facts).get("capture")
        if isinstance(capture, str):
            yield Link(label=text(language, "link.capture"), url=f"{url}/c/{capture}")
        elif tell.kind == "result":
            yield Link(label=text(language, "link.visit"), url=url)

    def digest(self, id_: str, person: Person, alerts: Sequence[Alert], why: Waited | None, now_us: int) -> Message:
        """Several pages' first words in one message, which asks nothing."""
        language = person.language
        list_ = self._list(alerts, language, now_us)
        said = words(language, _DIGESTS[why], zone=self.zone, n=len(alerts), list=list_)
        worst = min((alert.severity for alert in alerts), key=("critical", "warning", "info").index, default="warning")
        return Message(
            id=id_,
            kind="digest",
            severity=worst,  # type: ignore[arg-type]
            language=language,
            title=said.title,
            body=said.body,
            late=any(alert.late for alert in alerts),
            data={"message": "digest", "alerts": [alert.id for alert in alerts]},
        )

    def _of_alerts(self, about: About, language: Language, now_us: int) -> Words:
        first = self._alert(about.alerts[0], language, now_us, about.facts)
        if len(about.alerts) == 1:
            return first
        facts = {"title": first.title, "n": len(about.alerts) - 1, "list": self._list(about.alerts, language, now_us)}
        said = words(language, "page.grouped", kind=about.kind, zone=self.zone, **facts)
        return said if said.spoken else said._replace(spoken=first.spoken)

    def _moment(self, moment: str, tell: Tell, about: About, language: Language, now_us: int) -> Words:
        facts: dict[str, Any] = {
            "name": list(about.names),
            "needed": tell.missing,
            "n": max(len(tell.alerts), 1),
            "when": about.when_us if about.when_us is not None else now_us,
            "age": max(now_us - about.opened_us, 0),
            "where": "",
            "title": "",
            **({} if about.alerts else about.facts),  # of an alert they are for its own words
        }
        if about.alerts:
            first = about.alerts[0]
            place = self._deployments.of(first.node, first.device)
            facts["where"] = f"{place.place} {place.label}".strip()
            facts["title"] = self._alert(first, language, now_us, about.facts).title
            facts["age"] = max(now_us - first.since_us, 0)
            named = [alert for alert in about.alerts if alert.id in tell.alerts] or about.alerts
            facts["list"] = self._list(named, language, now_us)
        elif about.kind in PERSONAL:
            facts |= about_tag(about.facts, language, self.zone)
        return words(language, moment, kind=about.kind, zone=self.zone, **facts)

    def _alert(self, alert: Alert, language: Language, now_us: int, facts: Mapping[str, Any] | None = None) -> Words:
        return alert_words(alert, self._deployments.of(alert.node, alert.device), self.zone, now_us, language, facts)

    def _list(self, alerts: Sequence[Alert], language: Language, now_us: int) -> str:
        lines = [
            text(language, "part.digest_line", self.zone, when=alert.since_us, title=self._alert(alert, language, now_us).title)
            for alert in alerts[:LINES]
        ]
        if len(alerts) > LINES:
            lines.append(text(language, "part.digest_more", self.zone, n=len(alerts) - LINES))
        return "\n".join(lines)

    def _data(self, alert: Alert, now_us: int) -> dict[str, Any]:
        place = self._deployments.of(alert.node, alert.device)
        return {
            "alert": alert.id,
            "kind": alert.kind,
            "rule": alert.rule,
            "place": place.place,
            "label": place.label,
            "node": alert.node,
            "device": alert.device,
            "event_time": iso(alert.since_us),
            "alert_time": iso(alert.fired_us if alert.fired_us is not None else now_us),
        }


def without_place(message: Message) -> Message:
    """The message with no word of where a tag was; whom it is for, its links and what can be answered stay."""
    title, body = (text(message.language, f"screen.no_place.{part}") for part in ("title", "body"))
    return message.model_copy(update={"title": title, "body": body, "spoken": "", "data": {}})


def iso(time_us: int) -> str:
    """2026-06-03T06:12:00.000Z."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _buttons(tell: Tell, kind: str, language: Language) -> tuple[Button, ...]:
    """What can be answered. Who is only told is not asked whether they go; to say what a picture shows is never too much."""
    if tell.kind in ("update", "again", "over") and not tell.asks:
        return ()
    found = buttons_for(kind, tell.kind, language)
    return found if tell.asks else tuple(one for one in found if one.answer not in _GOING)


def _answers(buttons: Sequence[Button]) -> list[Any]:
    return [button.answer for button in buttons]


def _stop(title: str, language: Language) -> str:
    """Between a title and what follows it, where both are read aloud."""
    end = ". " if language == "en" else "。"
    return _gap(language) if title.endswith(end.strip()) else end


def _gap(language: Language) -> str:
    return "" if language == "ja" else " "
