"""gateway.toml: every fault names its setting, every setting says what it is for."""

import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

import gateway.config
from gateway.config import GatewayConfig, load
from gateway.contacts.config import PeopleConfig
from gateway.deployments import Deployments, Position
from gateway.errors import ConfigError
from gateway.mimamori.enrolled import Enrolled
from gateway.rules import Surroundings, build_rule
from gateway.rules.duration import parse_time_of_day, parse_time_or_never

GOOD = """
broker = { url = "mqtt://127.0.0.1:1883" }
state = { url = "sqlite:////var/lib/example/state.db" }
store = { type = "sqlite", path = "/var/lib/example/series.db" }
api = { tokens_file = "/etc/example/tokens" }
media = { folder = "/var/lib/example/media" }
nodes = { folder = "/n", public_url = "https://a.example", broker_url = "mqtts://a.example", server_names = ["a.example"] }
people = { public_url = "https://a.example", folder = "/p", office = "office", town = "霧沢町" }
channel = { mail = { host = "mail.a.example", from = "satomori@a.example" } }
group = { hunters = { label = "猟友会" } }
canary = { to = "office" }
heartbeat = { url = "https://watcher.example/ping" }
inhibit = [{ name = "storm", source = { rule = "silent" }, target = { kind = "camera" } }]
maintenance = [{ match = { kind = "flow" }, from = "02:00", to = "03:00", why = "清掃" }]
area = { hiroba = { label = "朝市広場", line = [{ node = "hiroba", device = "east" }] } }
route = [{ match = { kind = "trap" }, to = ["farmers"] }, { to = ["office"] }]

[[deployment]]
node = "kitayama-03"
device = "trap-11"
kind = "trap"
place = "北尾根"

[rule]
sprung = { type = "occurrence", event = "trap_sprung", until = "trap_reset", severity = "critical" }
silent = { type = "absence", of = "heartbeat", for = "26h" }

[contact]
farmers = { type = "webhook", url = "http://127.0.0.1:9000/" }
office = { type = "webhook", url = "http://127.0.0.1:9001/" }
"""


def loaded(text: str, tmp_path: Path) -> GatewayConfig:
    path = tmp_path / "gateway.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_a_whole_configuration(tmp_path: Path) -> None:
    config = loaded(GOOD, tmp_path)
    assert (config.api.host, config.api.port, config.time_zone) == ("127.0.0.1", 8080, "Asia/Tokyo")
    assert [route.to for route in config.route] == [["farmers"], ["office"]]
    assert config.rule["silent"].severity == "warning"


@pytest.mark.parametrize(
    ("wrong", "right", "setting"),
    [
        ('url = "mqtt://127.0.0.1:1883"', 'url = "http://x"', "broker.url: "),
        ('broker = { url = "mqtt://127.0.0.1:1883" }', "", "broker: is missing"),
        ('url = "mqtt://127.0.0.1:1883"', 'url = "mqtt://x", colour = 1', "broker.colour: there is no such setting; there are"),
        ('url = "sqlite:////var/lib/example/state.db"', 'url = "mysql://db/x"', "state.url: "),
        ('url = "sqlite:////var/lib/example/state.db"', 'url = "sqlite://"', "state.url: "),
        ('url = "sqlite:////var/lib/example/state.db"', 'url = "postgresql://me:pw@db/x"', "state.url: no password belongs in"),
        ('url = "sqlite:////var/lib/example/state.db"', 'url = "postgresql://me@db/x"', "keep.erasures_file: state in"),
        ('type = "sqlite"', 'type = "influx"', 'store.type: there is no "influx"; did you mean influxdb?'),
        (', path = "/var/lib/example/series.db"', "", "store.path: is missing"),
        ('tokens_file = "/etc/example/tokens"', 'tokens_file = "/x", port = 99999', "api.port: must be a whole number from 0 to"),
        ('folder = "/var/lib/example/media"', 'folder = "/x", max_mib = 0', "media.max_mib: must be a whole number from 1 to"),
        ('event = "trap_sprung"', 'event = "trap_spring"', "rule.sprung.event: 'trap_spring' is no event"),
        ('for = "26h"', 'for = "26 hours"', "rule.silent.for: "),
        ('type = "absence"', 'type = "absense"', 'rule.silent.type: there is no "absense"; did you mean absence?'),
        ("silent = {", '"Silent!" = {', 'rule."Silent!": "Silent!" is no name'),
        ('url = "http://127.0.0.1:9000/"', 'url = "nowhere"', "contact.farmers.url: "),
        ('to = ["farmers"]', 'steps = [{ to = "farmers", by = "sms" }]', "route.0.steps.0.by: there is no [channel.twilio]"),
        ('to = ["farmers"]', 'to = ["farmer"]', "route.0.to: neither contact.farmer nor group.farmer is configured"),
        ('to = ["office"]', "to = []", "route.1.to: is empty"),
        ('kind = "trap" }', 'rule = "sprang" }', "route.0.match.rule: rule.sprang is not configured"),
        ('kind = "trap" }', 'knd = "trap" }', "route.0.match.knd: there is no such setting; did you mean `kind`?"),
        ('place = "北尾根"', 'place = ""', "deployment.0.place: is empty"),
        ("[rule]", '[[deployment]]\nnode = "kitayama-03"\ndevice = "trap-11"\nkind = "camera"\nplace = "x"\n[rule]',
         "deployment.1: kitayama-03/trap-11 is deployed already, by deployment.0"),
        (', { to = ["office"] }', "", "route: none is without a match"),
        ('route = [{ match = { kind = "trap" }, to = ["farmers"] }, { to = ["office"] }]', "", "route: none is without a match"),
        ("route =", 'time_zone = "Asia/Kitayama"\nroute =', "time_zone: "),
        ("route =", "rout =", "rout: there is no such setting; did you mean `route`?"),
        ('canary = { to = "office" }', 'canary = { to = "office", at = "7時" }',
         "canary.at: '7時' is no time of day; write it as 07:30"),
        ('canary = { to = "office" }', 'canary = { to = "office", at = 07:30:00 }',
         'canary.at: 07:30:00 is without quotes; write it as "07:30"'),
        ('from = "02:00"', 'from = "2:00"', "maintenance.0.from: '2:00' is no time of day; write it as 02:00"),
        ('to = "03:00"', 'to = "24:00"', "maintenance.0.to: '24:00' is no time of day; write it as 07:30"),
        ('label = "猟友会" }', 'label = "猟友会", quiet = [{ from = "21:00", to = "6" }] }',
         "group.hunters.quiet.0.to: '6' is no time of day; write it as 07:30"),
        ('label = "朝市広場",', 'label = "x", empty_at = "3",',
         "area.hiroba.empty_at: '3' is no time of day; write it as 07:30, or"),
        ('to = ["farmers"] }', 'to = ["farmers"], digest = "7am" }', "route.0.digest: '7am' is no time of day; write it as"),
        ('place = "北尾根"', 'place = "x"\nat = [140.0846, 36.1046]',
         "deployment.0.at: [140.085, 36.1046] has no latitude from -90 to 90 first; is it [36.1046, 140.085]?"),
        ('place = "北尾根"', 'place = "x"\nat = "36.1, 140.1"', "deployment.0.at: '36.1, 140.1' is no position; write"),
        ('place = "北尾根"', 'place = "x"\nat = [36.1]', "deployment.0.at: '[36.1]' is no position; write latitude and"),
        ('place = "北尾根"', 'place = "x"\nat = [nan, 140.1]', "deployment.0.at: [nan, 140.1] is no place on earth"),
        ("https://watcher.example", "http://watcher.example", "heartbeat.url: http to watcher.example is open to be read"),
        ("route =", "route ==", "is no TOML"),
    ],
)  # fmt: skip
def test_a_fault_names_its_setting(wrong: str, right: str, setting: str, tmp_path: Path) -> None:
    assert wrong in GOOD
    with pytest.raises(ConfigError) as caught:
        loaded(GOOD.replace(wrong, right, 1), tmp_path)
    assert f"{tmp_path / 'gateway.toml'}{' ' if setting == 'is no TOML' else ': '}{setting}" in str(caught.value)


@given(st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.floats(), max_size=3)))
def test_whatever_stands_where_a_time_or_a_position_should_is_taken_as_meant_or_refused_in_words(value: object) -> None:
    for read in (parse_time_of_day, parse_time_or_never):
        with suppress(ValueError):
            assert read(value) == value
    try:
        taken = TypeAdapter(Position).validate_python(value)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
    else:
        assert list(taken) == value
        return
    assert any(words in why for words in ("is no position", "no latitude", "no place on earth"))


def test_the_small_town_of_the_readme_is_a_configuration(tmp_path: Path) -> None:
    readme = (Path(gateway.config.__file__).parent / "README.md").read_text(encoding="utf-8")
    text = readme.partition("### A whole one: ")[2].partition("```toml\n")[2].partition("```")[0]
    config = loaded(text, tmp_path)
    kinds = {rule.type for rule in config.rule.values()}
    assert {"trap", "presence", "crowd"} <= kinds
    assert config.channel.line is not None
    assert any(step.by == "voice" for route in config.route for step in route.steps)
    assert config.group["office"].quiet
    assert config.canary is not None
    assert config.heartbeat is not None
    deployments = Deployments(config.deployment)
    around = Surroundings(deployments, ZoneInfo(config.time_zone), config.area, Enrolled())
    for rule in config.rule.values():
        build_rule(rule, around)


def test_without_rules_no_route_is_needed(tmp_path: Path) -> None:
    text = GOOD.replace(', { to = ["office"] }', "")
    bare = "\n".join(line for line in text.splitlines() if not line.startswith(("sprung", "silent")))
    assert loaded(bare, tmp_path).rule == {}


@pytest.mark.parametrize("match", ["", "match = {}, "])
def test_a_route_that_fits_everything_may_be_written_both_ways(match: str, tmp_path: Path) -> None:
    assert len(loaded(GOOD.replace('{ to = ["office"] }', f'{{ {match}to = ["office"] }}'), tmp_path).route) == 2


def test_every_fault_has_a_line_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(GOOD.replace("mqtt://", "http://").replace("26h", "soon"), tmp_path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("content", "reason"), [(None, "can't be read"), (b"\xff\xfe", "is no TOML")])
def test_a_file_that_cannot_be_read(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        load(path)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    else:
        for part in get_args(annotation):
            yield from models(part)


def test_every_setting_says_what_it_is_for() -> None:
    silent = sorted(
        f"{model.__name__}.{name}"
        for model in set(models(GatewayConfig))
        if not model.__module__.startswith("gateway.store.")
        for name, field in model.model_fields.items()
        if not field.description
    )
    assert silent == []


def test_the_example_here_is_toml_and_complete() -> None:
    with_defaults = {"time_zone", "flapping", "mimamori", "search", "open_data", "share", "audit", "keep", "map", "log"}
    assert set(tomllib.loads(GOOD)) == set(GatewayConfig.model_fields) - with_defaults


@pytest.mark.parametrize(("town", "office"), [("霧沢町", "町役場"), ("霧沢村", "村役場"), ("里山市", "市役所"), ("", "市役所")])
def test_a_towns_office_is_called_as_towns_call_it(town: str, office: str) -> None:
    people = {"public_url": "https://gateway.example", "folder": "/keys", "office": "office", "town": town}
    assert PeopleConfig.model_validate(people).office_name == office
    assert PeopleConfig.model_validate({**people, "office_name": "支所"}).office_name == "支所"
