"""The documents name everything there is, with its true default, and their examples load.

A table is found by its heading: the settings of `reed_trap` stand in the table under the heading that begins with `reed_trap`.
"""

import argparse
import ast
import importlib
import inspect
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin
from unittest.mock import MagicMock

import pytest
from prometheus_client import Counter
from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic.fields import FieldInfo

import edge.cli
import edge.config
import gateway.cli
import gateway.config
import simulators.cli
from edge.config import EdgeConfig
from edge.contract.events import EVENTS
from edge.contract.metrics import METRICS
from edge.decoders.advertisement import parse_advertisement, parse_line
from edge.decoders.ibeacon import decode_ibeacon
from edge.drivers import DRIVERS, DeviceConfig
from gateway.api.app import create_app
from gateway.api.page import FILES
from gateway.config import GatewayConfig
from gateway.deployments import Deployment
from gateway.nodes.listener import create_node_app
from gateway.notify import CHANNELS
from gateway.policy import POLICY, ROLES
from gateway.rules import RULES, RuleConfig
from gateway.rules.duration import parse_duration
from gateway.telemetry import Telemetry
from simulators import pictures, soak
from simulators.bench import __main__ as bench
from simulators.bench import edge as bench_edge
from simulators.scenario import Steps

ROOT = Path(__file__).parent.parent
FOLDERS = ("edge", "gateway", "simulators", "dashboards", "firmware_configs", "tests")
FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md", "SECURITY.md")
DOCUMENTS = (*FRONT, *(f"{name}/README.md" for name in FOLDERS))

Row = dict[str, str]


# --- Reading Markdown -------------------------------------------------------------------------------


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def prose_of(document: str) -> str:
    """Without blocks of code, whose comments would look like headings."""
    return re.sub(r"^```.*?^```$", "", text_of(document), flags=re.MULTILINE | re.DOTALL)


def tables(document: str) -> Iterator[tuple[str, list[Row]]]:
    """(the heading above, rows by column) of each table."""
    heading, lines = "", prose_of(document).splitlines()
    at = 0
    while at < len(lines):
        if found := re.match(r"#+ (.*)", lines[at]):
            heading = found[1]
        if lines[at].startswith("|") and at + 1 < len(lines) and re.fullmatch(r"[|\- ]+", lines[at + 1]):
            columns, rows = cells(lines[at]), []
            at += 2
            while at < len(lines) and lines[at].startswith("|"):
                row = cells(lines[at])
                assert len(row) == len(columns), f"{document}: {lines[at]!r} has {len(row)} cells, its table {len(columns)}"
                rows.append(dict(zip(columns, row, strict=True)))
                at += 1
            yield heading, rows
        else:
            at += 1


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(document: str, first: str, heading: str = "") -> dict[str, Row]:
    """The rows of the tables whose first column is called so, under a heading that begins so: by their first cell, unquoted."""
    found = [rows for title, rows in tables(document) if title.startswith(heading) and next(iter(rows[0])) == first]
    assert found, f"{document} has no table of `{first}`" + (f" under a heading {heading}" if heading else "")
    return {row[first].strip("`"): row for rows in found for row in rows}


def names_in(rows: list[Row], first: str) -> set[str]:
    """The first cells of a table that begins with this column, unquoted."""
    return {row[first].strip("`") for row in rows if next(iter(row)) == first}


def examples(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), flags=re.MULTILINE | re.DOTALL)


def is_said(row: Row) -> bool:
    return all(row.values()) and len(row[list(row)[-1]]) > 2


# --- Settings ---------------------------------------------------------------------------------------


class Settings(NamedTuple):
    """One table of settings: where it should stand, and of what."""

    document: str
    heading: str
    model: type[BaseModel]


def kind_of(model: type[BaseModel]) -> str | None:
    """`reed_trap`, of a config with `type: Literal["reed_trap"]`."""
    field = model.model_fields.get("type")
    return str(get_args(field.annotation)[0]) if field and get_origin(field.annotation) is Literal else None


def configs_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from configs_in(part)


def all_settings(document: str, name: str, model: type[BaseModel]) -> Iterator[Settings]:
    """The model and every one that can be reached from it, under its name; as `area.line` where the document says it so."""
    heading = f"`{kind_of(model) or name}`"
    if f"### {heading}" not in text_of(document):
        heading = heading.replace(name, name.rpartition(".")[2])
    yield Settings(document, heading, model)
    for field_name, field in model.model_fields.items():
        for part in configs_in(field.annotation):
            yield from all_settings(document, f"{name.rpartition('.')[2]}.{field_name}", part)


SETTINGS = [
    *all_settings("edge/README.md", "edge.toml", EdgeConfig),
    *all_settings("gateway/README.md", "gateway.toml", GatewayConfig),
]


def default_of(field: FieldInfo) -> str:
    """As a table writes it."""
    default = field.default
    if field.is_required():
        return "required"
    if isinstance(default, BaseModel):
        return "its defaults"
    if default is None or (default != "" and not default and default != 0):
        return "none"
    if any(isinstance(one, BeforeValidator) and one.func is parse_duration for one in field.metadata):
        return f"`{default}s`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if default != "" else '`""`'


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: f"{one.document.split('/')[0]}-{one.model.__name__}")
def test_every_setting_stands_in_its_table_with_its_default(settings: Settings) -> None:
    rows = table(settings.document, "setting", settings.heading)
    fields = {field.alias or name: field for name, field in settings.model.model_fields.items()}
    assert {name: row["default"] for name, row in rows.items()} == {name: default_of(field) for name, field in fields.items()}
    assert [name for name, row in rows.items() if not is_said(row)] == []


def test_every_setting_is_described_in_the_code() -> None:
    """By its own description; `type`, and a table of settings, by the docstring of its model."""
    undescribed = {
        (model.__name__, name)
        for _, _, model in SETTINGS
        for name, field in model.model_fields.items()
        if not (field.description or (name == "type" and model.__doc__) or any(m.__doc__ for m in configs_in(field.annotation)))
    }
    assert undescribed == set()


def test_a_reader_finds_every_kind_of_driver_rule_and_channel() -> None:
    for document, configs in (("edge/README.md", DRIVERS), ("gateway/README.md", RULES), ("gateway/README.md", CHANNELS)):
        for config, _ in configs:
            assert (document, f"`{kind_of(config)}`") in {(one.document, one.heading) for one in SETTINGS}


# --- Metrics, events, telemetry, rights, routes -----------------------------------------------------


def test_every_metric_stands_in_the_table_as_it_is() -> None:
    def number(value: float) -> str:
        return "2^53" if value == 2**53 else f"{value:g}"

    rows = table("edge/README.md", "metric")
    assert list(rows) == list(METRICS)
    for name, metric in METRICS.items():
        said_by = [f"`{kind_of(config)}`" for config, driver in DRIVERS if name in metrics_of(driver)]
        assert rows[name] == {
            "metric": f"`{name}`",
            "unit": metric.unit,
            "range": f"{number(metric.low)} to {number(metric.high)}",
            "kind": str(metric.kind),
            "said by": ", ".join(said_by) or "no driver yet",
            "meaning": rows[name]["meaning"],
        }
        assert is_said(rows[name])


def test_every_metric_has_a_name_that_people_read_in_both_languages() -> None:
    page = (ROOT / "dashboards/plain/page.js").read_text(encoding="utf-8")
    languages = re.findall(r"\n    metrics: \{(.*?)\n    \},", page, re.DOTALL)
    assert len(languages) == 2
    for names in languages:
        assert set(re.findall(r'(\w+): "[^"]+"', names)) == set(METRICS)


def metrics_of(driver: Any) -> tuple[str, ...]:
    metrics: tuple[str, ...] = driver.metrics
    return metrics


def test_every_event_stands_in_the_table_with_its_class_and_fields() -> None:
    rows, fields = table("edge/README.md", "event"), table("edge/README.md", "field")
    assert list(rows) == list(EVENTS)
    users: dict[str, list[str]] = {}
    for name, event in EVENTS.items():
        own = [field for field in event.model_fields if field not in ("seq", "dt", "device", "type", "class_")]
        assert rows[name]["class"] == event.rank.name.lower()
        assert rows[name]["fields"] == (", ".join(f"`{field}`" for field in own) or "none")
        assert is_said(rows[name])
        for field in own:
            users.setdefault(field, []).append(f"`{name}`")
    assert {field: row["in"] for field, row in fields.items()} == {field: ", ".join(names) for field, names in users.items()}
    assert all(is_said(row) for row in fields.values())


def test_every_telemetry_name_stands_in_the_table_with_its_labels() -> None:
    instruments = [one for one in vars(Telemetry()).values() if hasattr(one, "_labelnames")]
    rows = table("gateway/README.md", "metric", "Telemetry")
    assert {name: (row["type"], row["labels"]) for name, row in rows.items()} == {
        one._name + ("_total" if isinstance(one, Counter) else ""): (
            one._type,
            ", ".join(f"`{label}`" for label in one._labelnames) or "none",
        )
        for one in instruments
    }
    assert all(is_said(row) for row in rows.values())


def test_who_may_do_what() -> None:
    rows = table("gateway/README.md", "action")
    assert {name: {role: row[f"`{role}`"] for role in ROLES} for name, row in rows.items()} == {
        action: {role: str(who.get(role, "-")) for role in ROLES} for action, who in POLICY.items()
    }
    assert {name: row["what it is for"] for name, row in table("gateway/README.md", "role").items()} == dict(ROLES)


def test_every_action_in_the_audit_trail() -> None:
    rows = table("gateway/README.md", "entry")
    assert set(rows) == actions_recorded() - set(POLICY) | (set(rows) & set(POLICY))
    assert all(is_said(row) and re.fullmatch(r"[a-z]+(\.[a-z-]+)?", name) for name, row in rows.items())


def actions_recorded() -> set[str]:
    """What the code hands to `record`, or to what hands it on, as an action: a text, or the name of one."""
    found = set()
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or len(call.args) < 3:
                continue
            if getattr(call.func, "attr", getattr(call.func, "id", "")) not in ("record", "_audited"):
                continue
            said = call.args[2]
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            action = said.value if isinstance(said, ast.Constant) else getattr(module, getattr(said, "id", ""), None)
            found |= {action} if isinstance(action, str) else set()
    return found


def test_every_route_of_the_api() -> None:
    paths = create_app(MagicMock()).openapi()["paths"]
    rows = [row for _, rows in tables("gateway/README.md") for row in rows if "path" in row and "method" in row]
    assert {(row["method"].strip("`"), row["path"].strip("`")) for row in rows} == {
        (method.upper(), path) for path, methods in paths.items() for method in methods
    }
    assert {row["needs"].strip("`") for row in rows} <= {"nothing", *POLICY}
    assert {f"plain/{name}" for name, _ in FILES.values()} == set(table("dashboards/README.md", "file"))


def test_every_route_of_the_node_listener() -> None:
    app = create_node_app(MagicMock(), MagicMock())
    assert set(table("gateway/README.md", "request")) == {
        f"{method.upper()} {path}"
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if not path.startswith("/api/v1/media/") or method in ("head", "patch")  # a node may not do the rest
    }


# --- Commands ---------------------------------------------------------------------------------------


def help_of(main: Callable[[list[str]], int], argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*argv, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z-]+", text)) - {"--help"}


@pytest.mark.parametrize(
    ("program", "main", "document"),
    [
        ("satomori-edge", edge.cli.main, "edge/README.md"),
        ("satomori-gateway", gateway.cli.main, "gateway/README.md"),
        ("satomori-sim", simulators.cli.main, "simulators/README.md"),
    ],
)
def test_every_command_and_option(
    program: str, main: Callable[[list[str]], int], document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = re.search(r"\{([a-z,]+)\}", help_of(main, [], capsys))
    assert commands
    here, in_front = table(document, "command"), table("README.md", "command")
    for command in commands[1].split(","):
        for rows in (here, in_front):
            assert any(re.match(rf"{program} {command}\b", name) for name in rows), f"{program} {command} is not in {document}"
        if re.search(r"\{[a-z,-]+\}", help_of(main, [command], capsys)):
            continue  # a group: below
        options = options_in(help_of(main, [command], capsys))
        own = {n for title, rows in tables(document) if title.startswith(f"`{command}`") for n in names_in(rows, "option")}
        common = {name for name in here if name.startswith("--")}
        told = set(table(document, "option", command)) if program == "satomori-sim" else common | own
        assert told == options, f"{program} {command}"


@pytest.mark.parametrize(
    "group", ["mimamori", "authority", "node", "silence", "contact", "invite", "account", "keep", "erase", "draft", "store"]
)
def test_every_command_about_nodes_and_every_option(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.search(r"\{([a-z,-]+)\}", help_of(gateway.cli.main, [group], capsys))
    assert commands
    here, told = table("gateway/README.md", "command"), table("gateway/README.md", "option", "Commands")
    for command in commands[1].split(","):
        name = f"{group} {command}"
        assert any(re.match(rf"satomori-gateway {name}\b", row) for row in here), f"{name} is not in gateway/README.md"
        of = {option for option, row in told.items() if f"`{name}`" in row["of"].split(", ")}
        assert options_in(help_of(gateway.cli.main, [group, command], capsys)) == of | {"--json"}, name
    assert all(is_said(row) for row in told.values())


@pytest.mark.parametrize(
    ("heading", "main"), [("soak", soak.main), ("bench", bench.main), ("agent", bench_edge.main), ("pictures", pictures.main)]
)
def test_every_option_of_the_other_programs(
    heading: str, main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(table("simulators/README.md", "option", heading)) == options_in(help_of(main, [], capsys))


def test_the_options_defaults_are_the_programs_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every option that says a number or a name; the others say in words what happens without."""
    parsers: list[argparse.ArgumentParser] = []

    def keep(parser: argparse.ArgumentParser, _argv: object = None) -> None:
        """In place of parsing: the parser as built."""
        parsers.append(parser)
        parser.exit()

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", keep)
    for main in (simulators.cli.main, soak.main, bench.main, bench_edge.main, pictures.main):
        with pytest.raises(SystemExit):
            main([])
    sim, *others = parsers
    (commands,) = [action for action in sim._actions if isinstance(action, argparse._SubParsersAction)]
    by_heading = dict(zip(("soak", "bench", "agent", "pictures"), others, strict=True)) | dict(commands.choices)
    checked = 0
    for heading, parser in by_heading.items():
        for name, row in table("simulators/README.md", "option", heading).items():
            default = parser._option_string_actions[name].default
            if default is not None and default is not False:
                assert row["default"].strip("`") == (f"{default:g}" if isinstance(default, float) else str(default)), name
                checked += 1
    assert checked > 10


def test_every_target_of_make() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", text_of("Makefile"), flags=re.MULTILINE)
    assert {name.removeprefix("make ") for name in table("README.md", "make")} == set(targets)


# --- Scenarios --------------------------------------------------------------------------------------


def test_every_step_of_a_scenario_with_what_it_takes() -> None:
    steps = {name.removeprefix("_do_"): step for name, step in vars(Steps).items() if name.startswith("_do_")}
    rows = table("simulators/README.md", "step")
    assert set(rows) == set(steps)
    for name, step in steps.items():
        takes = [
            f"`{one.name}`" + ("" if one.default is one.empty else f" (`{one.default}`)")
            for one in inspect.signature(step).parameters.values()
            if one.name != "self"
        ]
        assert rows[name]["takes"] == (", ".join(takes) or "nothing"), name
        assert is_said(rows[name])


def test_the_example_of_a_scenario_is_one() -> None:
    (example,) = (tomllib.loads(one) for one in examples("simulators/README.md", "toml"))
    assert set(example) <= set(table("simulators/README.md", "key"))
    for node in example["node"]:
        TypeAdapter(dict[str, DeviceConfig]).validate_python(node["device"])
    TypeAdapter(list[Deployment]).validate_python(example["deployment"])
    TypeAdapter(dict[str, RuleConfig]).validate_python(example["rule"])
    for step in example["step"]:
        takes = {name: value for name, value in step.items() if name not in ("at", "do")}
        inspect.signature(vars(Steps)[f"_do_{step['do']}"]).bind(None, **takes)


# --- Examples of configuration ----------------------------------------------------------------------


def test_the_whole_configurations_load(tmp_path: Path) -> None:
    loads: dict[str, Callable[[Path], BaseModel]] = {"edge.toml": edge.config.load, "gateway.toml": gateway.config.load}
    whole = {re.match(r"# (\S+?):", one)[1]: one for one in examples("README.md", "toml")}  # type: ignore[index]
    assert whole.keys() == loads.keys()
    for name, load in loads.items():
        (tmp_path / name).write_text(whole[name], encoding="utf-8")
        load(tmp_path / name)


@pytest.mark.parametrize(("document", "config"), [("edge/README.md", EdgeConfig), ("gateway/README.md", GatewayConfig)])
def test_the_small_examples_are_right(document: str, config: type[BaseModel]) -> None:
    shown: set[str] = set()
    for example in examples(document, "toml"):
        for key, value in tomllib.loads(example).items():
            field = config.model_fields[key]
            TypeAdapter(field.rebuild_annotation()).validate_python(value)
            parts = value.values() if isinstance(value, dict) else value
            shown |= {one["type"] for one in (value, *parts) if isinstance(one, dict) and "type" in one}
    kinds = {kind for settings in SETTINGS if settings.document == document and (kind := kind_of(settings.model))}
    assert shown == kinds, "every kind has an example"


def test_the_receivers_line_names_the_tag_of_the_example_beside_it() -> None:
    (line,) = [text for text in text_of("edge/README.md").splitlines() if text.startswith("-67 ")]
    heard = parse_line(line.encode())
    beacon = decode_ibeacon(parse_advertisement(heard.payload)) if heard else None
    assert beacon is not None
    assert beacon.uuid in text_of("edge/README.md")


# --- All files --------------------------------------------------------------------------------------


def committed() -> list[Path]:
    """What is in the repository, or would be."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so nobody can say what is committed")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


FOREIGN = re.compile(
    r"""
    /root/ | /home/[a-z] | /work/ | /tmp/v\b                                  # paths of one machine
    | pypi\.org/simple | files\.pythonhosted\.org | registry\.npmjs | index-url\s*=   # where packages happened to come from
    """,
    re.VERBOSE,
)


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in committed()
        if path != Path(__file__)
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1)
        if FOREIGN.search(line)
    ]
    assert found == []


def test_every_module_begins_with_its_law() -> None:
    """In tests the file's name says what it is for."""
    lawless = [
        str(path.relative_to(ROOT))
        for path in committed()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] != "tests"
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert lawless == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose_of(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose_of(str(file.resolve().relative_to(ROOT))), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_pictures_are_light_and_load_nothing() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of("README.md"))
    assert shown == ["docs/demo.png", "docs/demo.svg"]
    for name in shown:
        assert (ROOT / name).stat().st_size <= pictures.MOST_BYTES
    drawing = text_of("docs/demo.svg")
    assert re.findall(r"""(?:href|src|url)\s*[=(]\s*["']?https?:""", drawing) == []
