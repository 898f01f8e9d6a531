"""Which contacts an alert goes to: the first route whose `match` fits."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from edge.contract.names import Name


class Match(BaseModel):
    """What must be equal; what is absent fits everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str | None = Field(None, description="The deployment's kind, e.g. trap.")
    rule: str | None = Field(None, description="The rule's name.")
    severity: str | None = Field(None, description="info, warning or critical.")
    node: str | None = Field(None, description="The node's name.")
    device: str | None = Field(None, description="The device's name.")


class RouteConfig(BaseModel):
    """One line of `route`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: Match = Field(Match(), description="Which alerts take this route; absent: all.")
    to: list[Name] = Field(min_length=1, description="Contacts that are told.")


def contacts_for(routes: Sequence[RouteConfig], alert: dict[str, str]) -> list[str]:
    """The contacts of the first route that fits; nobody when none does."""
    for route in routes:
        wanted = route.match.model_dump(exclude_none=True)
        if all(alert.get(field) == value for field, value in wanted.items()):
            return list(dict.fromkeys(route.to))
    return []
