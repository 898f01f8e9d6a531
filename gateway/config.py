"""gateway.toml: its shape, and the one way to read it. Every fault names the setting."""

import tomllib
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.contract.names import Name
from gateway.alerting.route import RouteConfig
from gateway.deployments import Deployment
from gateway.errors import ConfigError
from gateway.ingest import GatewayBrokerConfig
from gateway.notify import ContactConfig
from gateway.rules import RuleConfig
from gateway.store import StoreConfig

_frozen = ConfigDict(extra="forbid", frozen=True)


class StateConfig(BaseModel):
    """`[state]`: the database of everything but time series."""

    model_config = _frozen

    url: str = Field(description="SQLAlchemy URL, e.g. sqlite:////var/lib/satomori-gateway/state.db")

    @field_validator("url")
    @classmethod
    def _is_file(cls, url: str) -> str:
        if not url.startswith("sqlite:///") or url in ("sqlite:///", "sqlite:///:memory:"):
            raise ValueError("this release keeps its state in a SQLite file: sqlite:////absolute/path/state.db")
        return url


class ApiConfig(BaseModel):
    """`[api]`: where people and programs ask."""

    model_config = _frozen

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Port to listen on; 0 takes a free one.")
    tokens_file: Path = Field(description="File with lines `<actor> <role> <token>`, readable by the gateway only.")
    stale_after_s: Annotated[float, Field(gt=0)] = Field(600, description="A device silent for this long is shown as unknown.")


class MediaConfig(BaseModel):
    """`[media]`: where pictures are kept."""

    model_config = _frozen

    folder: Path = Field(description="Folder for pictures, written by the gateway only.")
    max_mib: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="The largest picture that is taken.")


class GatewayConfig(BaseModel):
    """All of gateway.toml."""

    model_config = _frozen

    broker: GatewayBrokerConfig = Field(description="Where the broker is.")
    state: StateConfig = Field(description="The database of everything but time series.")
    store: StoreConfig = Field(description="The series store: sqlite or influxdb.")
    api: ApiConfig = Field(description="Where people and programs ask.")
    media: MediaConfig = Field(description="Where pictures are kept.")
    time_zone: str = Field("Asia/Tokyo", description="IANA zone of the times in messages.")
    deployment: list[Deployment] = Field([], description="Which device stands where.")
    rule: dict[Name, RuleConfig] = Field({}, description="What raises an alert, by name.")
    contact: dict[Name, ContactConfig] = Field({}, description="Who is told, by name.")
    route: list[RouteConfig] = Field([], description="Which alert goes to whom: the first that matches.")

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no IANA time zone like Asia/Tokyo") from error
        return name

    @field_validator("deployment")
    @classmethod
    def _stands_once(cls, deployments: list[Deployment]) -> list[Deployment]:
        stands: dict[tuple[str, str], int] = {}
        for number, one in enumerate(deployments):
            other = stands.setdefault((one.node, one.device), number)
            if other != number:
                raise ValueError(f"deployment.{number}: {one.node}/{one.device} is deployed already, by deployment.{other}")
        return deployments

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> "GatewayConfig":
        for number, route in enumerate(self.route):
            for contact in route.to:
                if contact not in self.contact:
                    raise ValueError(f"route.{number}.to: contact.{contact} is not configured")
            if route.match.rule is not None and route.match.rule not in self.rule:
                raise ValueError(f"route.{number}.match.rule: rule.{route.match.rule} is not configured")
        if self.rule and not any(not route.match.model_dump(exclude_none=True) for route in self.route):
            raise ValueError(
                "route: none is without a match, so an alert that fits none reaches nobody. "
                'Add one at the end: [[route]] with to = ["<contact>"] only'
            )
        return self


def load(path: Path) -> GatewayConfig:
    """Reads and checks the file. ConfigError with one line a fault, each naming its setting."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    try:
        return GatewayConfig.model_validate(document)
    except ValidationError as error:
        faults = [f"{path}: {'.'.join(map(str, fault['loc'])) or 'gateway'}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error
