"""gateway.toml: its shape, and the one way to read it. Every fault names the setting."""

import re
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationError,
    field_validator,
    model_validator,
)

from edge.contract.broker import parse_url
from edge.contract.faults import plain
from edge.contract.names import Name
from gateway.alerting.mute import FlappingConfig, InhibitConfig, MaintenanceConfig
from gateway.alerting.route import FAMILY, RouteConfig
from gateway.audit.config import AuditConfig
from gateway.canary import CANARY, CanaryConfig
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.deployments import Deployment
from gateway.errors import ConfigError
from gateway.flow.config import AreaConfig
from gateway.heartbeat import HeartbeatConfig
from gateway.ingest import GatewayBrokerConfig
from gateway.keeping.config import KeepConfig
from gateway.leases import LEASE_S
from gateway.logs import LogConfig
from gateway.media import MOST_MEGAPIXELS
from gateway.mimamori.config import MimamoriConfig, SearchConfig
from gateway.notify import ContactConfig
from gateway.notify.channels import ChannelsConfig
from gateway.open_data import OpenDataConfig
from gateway.rules import OWN, SYNTHETIC, RuleConfig
from gateway.rules.detection import DetectionConfig
from gateway.rules.duration import parse_duration
from gateway.shares import ShareConfig
from gateway.store import StoreConfig
from gateway.tiles import MapConfig

_frozen = ConfigDict(extra="forbid", frozen=True)


class StateConfig(BaseModel):
    """`[state]`: the database of everything but time series."""

    model_config = _frozen

    url: str = Field(
        description="sqlite:////var/lib/satomori-gateway/state.db, or postgresql://user@host/database for several processes"
    )
    password_file: Path | None = Field(
        None, description="File with the password of PostgreSQL's user, readable by the gateway only."
    )
    lease: Annotated[int, BeforeValidator(parse_duration)] = Field(
        LEASE_S, ge=3, le=300, description="Of several processes: one that was not heard of for so long is taken for dead."
    )

    @property
    def is_shared(self) -> bool:
        """Whether several processes may work in it."""
        return not self.url.startswith("sqlite:")

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        if url.startswith("sqlite:///") and url not in ("sqlite:///", "sqlite:///:memory:"):
            return url
        if not url.startswith(("postgresql://", "postgresql+psycopg://")):
            raise ValueError("state is kept in sqlite:////absolute/path/state.db or postgresql://user@host/database")
        if ":" in url.partition("://")[2].partition("@")[0]:
            raise ValueError(
                "no password belongs in a URL that is read by many: put it into a file that state.password_file names"
            )
        return url


class ApiConfig(BaseModel):
    """`[api]`: where people and programs ask."""

    model_config = _frozen

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Port to listen on; 0 takes a free one.")
    tokens_file: Path = Field(description="File with lines `<actor> <role> <token>`, readable by the gateway only.")
    trusted_proxies: list[IPvAnyNetwork] = Field(
        [], description="Addresses or networks of reverse proxies whose X-Forwarded-For is believed: 127.0.0.1, 192.0.2.0/28."
    )
    connections_per_address: Annotated[int, Field(ge=1, le=500)] = Field(
        200, description="Connections at once of one address, of 500 altogether; those of trusted proxies are not counted so."
    )
    stale_after_s: Annotated[float, Field(gt=0)] = Field(600, description="A device silent for this long is shown as unknown.")


class MediaConfig(BaseModel):
    """`[media]`: where pictures are kept."""

    model_config = _frozen

    folder: Path = Field(description="Folder for pictures, written by the gateway only.")
    max_mib: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="The largest picture that is taken.")
    max_megapixels: Annotated[int, Field(ge=1, le=1000)] = Field(
        MOST_MEGAPIXELS, description="The most pixels that an image may say it has: more would be a bomb for who opens it."
    )
    total_gib: Annotated[int, Field(ge=1)] | None = Field(
        None, description="All pictures together; what comes then waits on its node. Absent: as much as the disk has."
    )


class NodesConfig(BaseModel):
    """`[nodes]`: the nodes' identities and their remote care."""

    model_config = _frozen

    folder: Path = Field(description="Folder of the authority, its keys and what brokers read; mode 0700.")
    # Nodes come over the network, and what this listener does needs a code, a key or a token.
    host: str = Field("0.0.0.0", description="Address of the node listener.")  # noqa: S104
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8443, description="Port of the node listener; 0 takes a free one.")
    public_url: str = Field(description="The node listener as nodes reach it: https://gateway.example:8443")
    broker_url: str = Field(description="The broker as nodes reach it: mqtts://gateway.example:8883")
    server_names: Annotated[list[str], Field(min_length=1)] = Field(
        description="DNS names and addresses of broker and node listener: they stand in their certificates."
    )
    claim_hours: Annotated[int, Field(ge=1, le=24 * 90)] = Field(72, description="How long a claim code may be used.")
    certificate_days: Annotated[int, Field(ge=1, le=3650)] = Field(365, description="How long a node's certificate is good.")
    broker_pid_file: Path | None = Field(
        None, description="File with the broker's process id: it gets SIGHUP when nodes change; absent: it is yours to reload."
    )

    @field_validator("server_names")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not _is_server_name(name):
                raise ValueError(f"{name!r} is neither a DNS name like gateway.example nor an address like 192.0.2.7")
        return names

    @model_validator(mode="after")
    def _nodes_can_get_there(self) -> "NodesConfig":
        public = urlsplit(self.public_url)
        beyond = public.path.strip("/") + public.query + public.fragment
        if public.scheme != "https" or not public.hostname or public.port == 0 or beyond or "@" in public.netloc:
            raise ValueError(f"public_url: {self.public_url!r} is not https://host:port")
        broker = parse_url(self.broker_url)
        if not broker.tls:
            raise ValueError(f"broker_url: {self.broker_url!r} is not mqtts://host:port; nodes show their certificates by TLS")
        for setting, host in (("public_url", public.hostname), ("broker_url", broker.host)):
            if host not in {name.lower() for name in self.server_names}:
                raise ValueError(f"server_names lacks {host}, the host of {setting}: nodes would refuse its certificate")
        return self


def _is_server_name(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return len(name) <= 253 and re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", name) is not None
    return True


class GatewayConfig(BaseModel):
    """All of gateway.toml."""

    model_config = _frozen

    broker: GatewayBrokerConfig = Field(description="Where the broker is.")
    state: StateConfig = Field(description="The database of everything but time series.")
    store: StoreConfig = Field(description="The series store: sqlite, influxdb or victoriametrics.")
    api: ApiConfig = Field(description="Where people and programs ask.")
    media: MediaConfig = Field(description="Where pictures are kept.")
    nodes: NodesConfig | None = Field(None, description="The nodes' identities and their remote care; absent: none.")
    time_zone: str = Field("Asia/Tokyo", description="IANA zone of the times in messages.")
    deployment: list[Deployment] = Field([], description="Which device stands where.")
    area: dict[Name, AreaConfig] = Field({}, description="Places with counters at their edges, by name.")
    rule: dict[Name, RuleConfig] = Field({}, description="What raises an alert, by name.")
    contact: dict[Name, ContactConfig] = Field({}, description="Who is told, by name.")
    channel: ChannelsConfig = Field(ChannelsConfig(), description="Over what people are told: line, push, mail, twilio.")
    group: dict[Name, GroupConfig] = Field({}, description="People who are told together, by name.")
    people: PeopleConfig | None = Field(None, description="What messages to people need; absent: webhooks only.")
    keep: KeepConfig = Field(KeepConfig(), description="How long what is kept.")
    mimamori: MimamoriConfig = Field(MimamoriConfig(), description="Who may look where tags were.")
    search: SearchConfig = Field(SearchConfig(), description="How a missing person is searched for.")
    share: ShareConfig = Field(ShareConfig(), description="How much of the gateway one node may take.")
    audit: AuditConfig = Field(AuditConfig(), description="Who outside remembers what the trail of acts was.")
    open_data: OpenDataConfig | None = Field(None, description="What everybody may have, at /open/; absent: nothing.")
    map: MapConfig = Field(MapConfig(), description="Where the map's tiles come from.")
    log: LogConfig = Field(LogConfig(), description="What the log looks like, and how much it says.")
    canary: CanaryConfig | None = Field(None, description="A test alarm each day, the whole way to a phone; absent: none.")
    heartbeat: HeartbeatConfig | None = Field(None, description="Who outside is told that the gateway is well; absent: nobody.")
    route: list[RouteConfig] = Field([], description="Which alert goes to whom: the first that matches.")
    inhibit: list[InhibitConfig] = Field([], description="What is not told while something that it follows from is known.")
    maintenance: list[MaintenanceConfig] = Field([], description="Hours in which somebody works there, again and again.")
    flapping: FlappingConfig = Field(FlappingConfig(), description="When what comes and goes is told no more.")

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
                raise ValueError(f"{number}: {one.node}/{one.device} is deployed already, by deployment.{other}")
        return deployments

    @model_validator(mode="after")
    def _canary_leads_somewhere(self) -> "GatewayConfig":
        if self.canary is not None and self.canary.to not in self.contact and self.canary.to not in self.group:
            raise ValueError(f"canary.to: neither contact.{self.canary.to} nor group.{self.canary.to} is configured")
        if CANARY in self.rule:
            raise ValueError(f"rule.{CANARY}: the gateway has a rule of this name by itself; give yours another")
        return self

    @model_validator(mode="after")
    def _the_office_is_somebody(self) -> "GatewayConfig":
        if self.people is not None and self.people.office not in (*self.contact, *self.group):
            name = self.people.office
            raise ValueError(f"people.office: neither contact.{name} nor group.{name} is configured")
        for name in self.people.mode_to if self.people is not None else ():
            if name not in (*self.contact, *self.group):
                raise ValueError(f"people.mode_to: neither contact.{name} nor group.{name} is configured")
        return self

    @model_validator(mode="after")
    def _who_is_watched_over_has_an_office(self) -> "GatewayConfig":
        if "mimamori" in self.model_fields_set and self.people is None:
            raise ValueError(
                "mimamori: needs [people], whose office hears that a tag is misused: write public_url, folder and office there"
            )
        return self

    @model_validator(mode="after")
    def _searches_ask_somebody(self) -> "GatewayConfig":
        for name in self.search.groups:
            if name not in (*self.contact, *self.group):
                raise ValueError(f"search: neither contact.{name} nor group.{name} is configured")
        return self

    @model_validator(mode="after")
    def _erasures_go_somewhere(self) -> "GatewayConfig":
        if self.state.url.startswith("postgresql") and self.keep.erasures_file is None:
            raise ValueError(
                "keep.erasures_file: state in PostgreSQL has no folder in which to write what was erased. Name a file on a disk "
                "that is not restored with the database"
            )
        return self

    @model_validator(mode="after")
    def _heads_go_somewhere(self) -> "GatewayConfig":
        name = self.audit.heads_to
        if name is not None and name not in (*self.contact, *self.group):
            raise ValueError(f"audit.heads_to: neither contact.{name} nor group.{name} is configured")
        return self

    @model_validator(mode="after")
    def _open_areas_tell_nothing_together(self) -> "GatewayConfig":
        stands: dict[tuple[str, str], str] = {}
        for name in self.open_data.areas if self.open_data is not None else ():
            if name not in self.area:
                raise ValueError(f"open_data.areas: area.{name} is not configured")
            for line in self.area[name].line:
                other = stands.setdefault((line.node, line.device), name)
                if other != name:
                    raise ValueError(
                        f"open_data.areas: {other} and {name} share the counter {line.node}/{line.device}: what one has more "
                        "than the other would tell of few people. Publish one of them"
                    )
        return self

    @model_validator(mode="after")
    def _own_rule_is_its_own(self) -> "GatewayConfig":
        if OWN in self.rule:
            raise ValueError(f"rule.{OWN}: the gateway has a rule of this name by itself; give yours another")
        return self

    @model_validator(mode="after")
    def _steps_have_their_channel(self) -> "GatewayConfig":
        has = {name for name in ("line", "push", "mail") if getattr(self.channel, name) is not None}
        has |= {"sms", "voice"} if self.channel.twilio is not None else set()
        for number, route in enumerate(self.route):
            for at, step in enumerate(route.steps):
                if step.by is not None and step.by != "webhook" and step.by not in has:
                    section = "twilio" if step.by in ("sms", "voice") else step.by
                    raise ValueError(
                        f"route.{number}.steps.{at}.by: there is no [channel.{section}], so this step would reach nobody"
                    )
        return self

    @model_validator(mode="after")
    def _channels_know_people(self) -> "GatewayConfig":
        if self.channel.any and self.people is None:
            raise ValueError("channel: needs [people], which says how phones reach this gateway and where its keys are")
        return self

    @model_validator(mode="after")
    def _deployments_belong_to_groups(self) -> "GatewayConfig":
        for number, one in enumerate(self.deployment):
            for name in one.groups:
                if name not in self.group:
                    raise ValueError(f"deployment.{number}.groups: group.{name} is not configured")
        return self

    @field_validator("route")
    @classmethod
    def _routes_have_names(cls, routes: list[RouteConfig]) -> list[RouteConfig]:
        """A page finds its route by name. One that was given none is called by its place."""
        named = [
            route if "name" in route.model_fields_set or not number else route.model_copy(update={"name": f"main-{number}"})
            for number, route in enumerate(routes)
        ]
        first: dict[str, int] = {}
        for number, route in enumerate(named):
            other = first.setdefault(route.name, number)
            if other != number:
                raise ValueError(
                    f"{number}.name: route.{other} is called {route.name} already; a page finds its route by its name"
                )
        return named

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> "GatewayConfig":
        for number, route in enumerate(self.route):
            for at, step in enumerate(route.all_steps):
                where = f"route.{number}.to" if route.to else f"route.{number}.steps.{at}.to"
                for name in step.to:
                    if name not in self.contact and name not in self.group and name != FAMILY:
                        raise ValueError(f"{where}: neither contact.{name} nor group.{name} is configured")
            if route.match.rule is not None and route.match.rule not in (*self.rule, OWN, CANARY):
                raise ValueError(f"route.{number}.match.rule: rule.{route.match.rule} is not configured")
        if self.rule and not any(not route.match.model_dump(exclude_none=True) for route in self.route):
            raise ValueError(
                "route: none is without a match, so an alert that fits none reaches nobody. "
                'Add one at the end: [[route]] with to = ["<contact or group>"] only'
            )
        return self

    @property
    def taken_names(self) -> frozenset[str]:
        """Names that brokers or certificates know as something else than a node."""
        own = {self.broker.client_id, *([self.broker.username] if self.broker.username else [])}
        return frozenset(own | {CANARY} | SYNTHETIC | set(self.nodes.server_names if self.nodes else ()))

    @property
    def tells_pictures(self) -> bool:
        """Whether a rule tells of animals before cameras: then a trap's alert need not."""
        return any(isinstance(rule, DetectionConfig) for rule in self.rule.values())


def load(path: Path) -> GatewayConfig:
    """Reads and checks the file. ConfigError with one line a fault, each naming its setting."""
    try:
        return GatewayConfig.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in plain(GatewayConfig, error))) from error


def read_toml(path: Path) -> dict[str, Any]:
    """What a file says. ConfigError where it can't be read, or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
