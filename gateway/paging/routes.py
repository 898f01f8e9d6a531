"""Which route an alert or a page takes, as it is configured now. Where none fits it is the office's."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gateway.alerting.escalation import Memory
from gateway.alerting.lifecycle import Alert
from gateway.alerting.route import RouteConfig, StepConfig, route_for

log = logging.getLogger(__name__)


class Routes:
    """The configured ones, and the office behind them."""

    def __init__(self, routes: Sequence[RouteConfig], office: str | None) -> None:
        """`office`: the group or contact that hears when nobody can be reached (`people.office`)."""
        self._routes, self.office = routes, office

    def of_alert(self, alert: Alert) -> RouteConfig | None:
        """None where nobody is told of it."""
        route = route_for(self._routes, asdict(alert))
        if route is not None:
            return route
        who = "the office" if self.office else "nobody"
        log.error("alert %s of rule.%s: no route fits, %s is told. Add a [[route]] without a match", alert.id, alert.rule, who)
        return None if self.office is None else self._of_office()

    def of_page(self, row: Any, mine: Sequence[Alert], memory: Memory) -> RouteConfig:
        """The page's route as it is configured now; where it was removed, the one that its alerts would take."""
        if memory.scripted is None:
            named = [route for route in self._routes if route.name == row.route]
            alert = asdict(mine[0]) if mine else None
            first = [route for route in named if alert is not None and route.match.fits(alert)] or named
            if first:
                return first[0]
            if mine and (other := route_for(self._routes, asdict(mine[0]))):
                return other
        return self._of_office()

    def groups_of(self, taken: set[str]) -> set[str]:
        """Everybody whom the routes of these names may tell."""
        return {to for route in self._routes if route.name in taken for step in route.all_steps for to in step.to}

    def _of_office(self) -> RouteConfig:
        """What nobody else is for."""
        return RouteConfig(name="office", steps=[StepConfig(to=[self.office or "nobody"])], tell_end=True)
