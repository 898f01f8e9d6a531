"""satomori-gateway as an operator meets it: exit codes 0, 1, 2, one line for people or one object for programs."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.cli import main
from gateway.contacts.proof import heard
from gateway.state import open_state
from gateway.state.tables import addresses, labels, watched
from simulators.broker import Broker, nats
from simulators.ports import free_port
from tests import postgresql
from tests.gateway.backup.saved import tables_of, upgraded_to

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with nats(tmp_path_factory.mktemp("broker")) as running:
        yield running


def written(folder: Path, broker_url: str, more: str = 'route = [{ to = ["office"] }]') -> Path:
    tokens = folder / "tokens"
    tokens.write_text("tanaka operator,officer invented-operator-token\n")
    tokens.chmod(0o600)
    path = folder / "gateway.toml"
    path.write_text(
        f"""
broker = {{ url = "{broker_url}" }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{tokens}", port = 0 }}
media = {{ folder = "{folder}/media" }}
{more}
[rule]
sprung = {{ type = "occurrence", event = "trap_sprung" }}
[contact]
office = {{ type = "webhook", url = "http://127.0.0.1:9/" }}
"""
    )
    return path


def test_check_of_a_good_configuration(broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, broker.url)
    open_state(f"sqlite:///{tmp_path}/state.db").close()
    assert main(["check", str(path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    parts = ["clock", "disk", "state", "store", "media", "api.tokens_file", "broker", "queues", "backup"]
    assert [line.split()[1].rstrip(":") for line in lines] == parts
    assert {line.split()[0] for line in lines[1:-1]} == {"OK"}


@pytest.mark.sqlite_only("about the file")
def test_check_before_the_first_start_says_so_and_makes_no_database(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, broker.url)
    for _ in range(2):
        assert main(["check", str(path), "--json"]) == 0
        parts = json.loads(capsys.readouterr().out)["parts"]
        assert parts["state"]["level"] == "!!"
        assert "no tables yet: start the gateway once" in parts["state"]["text"]
        assert parts["media"]["level"] == "OK"
        assert parts["queues"]["text"] == "nothing waits"
        assert not (tmp_path / "state.db").exists()


@pytest.mark.sqlite_only("its file is made as an earlier version left it")
def test_check_of_an_older_database_says_what_to_do_and_leaves_it_as_it_was(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, broker.url)
    upgraded_to("0002", tmp_path / "state.db")
    before = tables_of(tmp_path / "state.db")
    assert main(["check", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parts"]["state"]["level"] == "!!"
    assert "of an older release (schema 0002" in said["parts"]["state"]["text"]
    assert said["parts"]["media"]["level"] == "??"
    assert tables_of(tmp_path / "state.db") == before


@pytest.mark.sqlite_only("its file is damaged")
@pytest.mark.parametrize("table", ["notifications", "watched"])
def test_check_of_a_damaged_database_says_that_it_is(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    """It opens, and one of its tables can't be read."""
    path, file = written(tmp_path, broker.url), tmp_path / "state.db"
    open_state(f"sqlite:///{file}").close()
    with closing(sqlite3.connect(file)) as connection:
        [(size,)] = connection.execute("PRAGMA page_size")
        roots = connection.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = ?", (table,)).fetchall()
    pages = bytearray(file.read_bytes())
    for (root,) in roots:
        pages[(root - 1) * size : root * size] = bytes([255]) * size
    file.write_bytes(pages)
    assert main(["check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [part for part, one in found["parts"].items() if one["level"] == "NG"] == ["state"]
    assert "malformed" in found["faults"]["state"]


@pytest.mark.services
def test_check_of_an_empty_postgresql_leaves_it_empty(broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with postgresql.running() as server:
        path = written(
            tmp_path, broker.url, f'keep = {{ erasures_file = "{tmp_path}/erasures" }}\nroute = [{{ to = ["office"] }}]'
        )
        path.write_text(path.read_text().replace(f"sqlite:///{tmp_path}/state.db", server.make("empty")))
        assert main(["check", str(path), "--json"]) == 0
        assert "no tables yet" in json.loads(capsys.readouterr().out)["parts"]["state"]["text"]
        assert server.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database="empty") == [(0,)]


def test_check_says_of_each_part_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
    (tmp_path / "tokens").chmod(0o644)
    (tmp_path / "series.db").write_text("no series at all" * 100)
    assert main(["check", str(path), "--json"]) == 1
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert sorted(said["faults"]) == ["api.tokens_file", "broker", "store"]
    assert "broker.url: 127.0.0.1" in said["faults"]["broker"]
    assert main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.count("NG  ") == 3
    assert out.count("api.tokens_file:") == 1, "each place is said once"


def test_check_says_that_a_channel_could_not_even_begin(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    channel = f'channel = {{ line = {{ channel_secret_file = "{secret}", access_token_file = "{secret}" }} }}\n'
    people = (
        f'people = {{ public_url = "https://a.example", folder = "{tmp_path}/people", office = "office", town = "霧沢町" }}\n'
    )
    path = written(tmp_path, broker.url, channel + people + 'route = [{ to = ["office"] }]')
    assert main(["check", str(path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert list(said["faults"]) == ["channel"]
    assert str(secret) in said["faults"]["channel"]


@pytest.fixture
def quiet_town(broker: Broker, tmp_path: Path) -> Path:
    """A town in which nobody has joined yet."""
    return written(
        tmp_path, broker.url,
        f"""
people = {{ public_url = "https://a.example", folder = "{tmp_path}/people", office = "desk" }}
group = {{ desk = {{ label = "役場" }}, farmers = {{ label = "わな番" }}, spare = {{ label = "予備" }} }}
canary = {{ to = "desk" }}
channel = {{ mail = {{ host = "mail.a.example", from = "satomori@a.example" }} }}
route = [
  {{ name = "traps", match = {{ kind = "trap" }}, steps = [{{ to = "farmers" }}, {{ after = "5m", to = "desk", by = "mail" }}] }},
  {{ name = "rest", to = ["office"] }},
  {{ name = "never", match = {{ kind = "camera" }}, to = ["office"] }},
]
""",
    )  # fmt: skip


def warned(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["check", str(path), "--json"]) == 0, "people join a gateway that runs"
    said: list[str] = json.loads(capsys.readouterr().out)["warnings"]
    return said


def test_check_says_where_nobody_would_hear_an_alert(quiet_town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = warned(quiet_town, capsys)
    assert [one.partition(":")[0] for one in said] == [
        "people.office", "route.0.steps.0", "route.0.steps.1", "route.0", "route.2", "group.spare", "canary.to", "heartbeat",
    ]  # fmt: skip
    assert "invite add ... farmers" in said[1]
    assert "over mail" in said[2]
    assert "contact add --group desk --mail" in said[2]
    assert "it would go unheard" in said[3]
    assert "route.1 before it fits every alert" in said[4]
    assert main(["check", str(quiet_town)]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"!!  {one.partition(':')[0]}:") for one in said] == [1] * len(said)


def test_check_is_content_where_somebody_answered(quiet_town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = []
    for group in ("desk", "farmers", "spare"):
        words = ["--name", "田中", "--group", group, "--mail", f"{group}@example.jp", "--json"]
        assert main(["contact", "add", str(quiet_town), *words]) == 0
        ids.append(json.loads(capsys.readouterr().out)["contact"]["id"])
    state = open_state(f"sqlite:///{quiet_town.parent}/state.db")
    with state.write() as connection:
        for address in connection.scalars(select(addresses.c.id)).all():
            heard(connection, address, 1)
    state.close()
    said = warned(quiet_town, capsys)
    assert [one.partition(":")[0] for one in said] == [
        "route.2",
        "heartbeat",
        f"contacts {' and '.join(ids)} are called the same",
    ]
    assert "田中" not in str(said)


def test_check_says_whose_family_is_not_there_and_that_misuse_would_ring_nobody(
    quiet_town: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = open_state(f"sqlite:///{quiet_town.parent}/state.db")
    row = {
        "id": "ab" * 8,
        "name": "花山",
        "family": "family-hana",
        "homes": '["tsubaki/tagz"]',
        "created_us": 0,
        "created_by": "",
    }
    with state.write() as connection:
        connection.execute(insert(watched), {**row, "created_by": ""})
        connection.execute(insert(labels), {"label": "2345ABCDE", "tag": "t", "made_us": 0, "made_by": ""})
    state.close()
    said = [one for one in warned(quiet_town, capsys) if one.startswith(("watched", "labels"))]
    assert ["tagz is not known here" in said[0], "nobody of family-hana" in said[1], "misused" in said[2]] == [True] * 3
    assert len(said) == 3
    assert "花山" not in str(said)
    assert main(["check", str(quiet_town)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.strip().startswith("/")) <= 80, "but for a path, which stays whole"


def test_check_names_kinds_of_rules_that_only_the_last_route_takes(quiet_town: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = quiet_town.read_text()
    more = 'night = { type = "presence", when = "left_home_at_night", severity = "critical" }\n'
    quiet_town.write_text(text.replace("[contact]", f"{more}[contact]"))
    [said] = [one for one in warned(quiet_town, capsys) if "fits every alert, and alone" in one]
    assert said.startswith("route.1: ")
    assert said.endswith(": presence. Put one before it")


def test_watching_over_people_needs_an_office_that_hears_of_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "mqtt://127.0.0.1:1", 'mimamori = { look_every = "5m" }\nroute = [{ to = ["office"] }]')
    assert main(["check", str(path)]) == 2
    assert "mimamori: needs [people], whose office hears that a tag is misused" in capsys.readouterr().err


def test_who_stops_reading_is_no_fault(tmp_path: Path) -> None:
    path = written(tmp_path, "mqtt://127.0.0.1:1")
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]
    try:
        said = subprocess.run(
            [*command, "keep", "report", str(path)],
            check=False, stdout=writes, stderr=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        os.close(writes)
    assert (said.returncode, said.stderr) == (141, b"")


@pytest.mark.sqlite_only("about the file")
def test_a_state_database_that_does_not_open_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "mqtt://127.0.0.1:1")
    (tmp_path / "state.db").write_text("no database at all" * 100)
    assert main(["check", str(path), "--json"]) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert "state.url: the database" in faults["state"]
    assert "can't be tried until the state database opens" in faults["media"]


@pytest.mark.sqlite_only("about the file")
def test_what_the_gateway_makes_is_its_users_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o022)
    try:
        path = written(tmp_path, "mqtt://127.0.0.1:1")
        main(["keep", "report", str(path)])
        main(["check", str(path)])
    finally:
        os.umask(before)
    made = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.db*")}
    assert made.keys() >= {"state.db", "series.db"}
    assert set(made.values()) == {0o600}


def test_check_of_something_that_is_no_broker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.check.TIMEOUT_S", 0.5)
    from simulators.phone import Phone  # an HTTP server, which waits for more

    with Phone() as phone:
        assert main(["check", str(written(tmp_path, phone.url.replace("http", "mqtt"))), "--json"]) == 1
    assert "broker" in json.loads(capsys.readouterr().out)["faults"]


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_configuration_is_exit_code_2(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "mqtt://127.0.0.1:1", "rout = []")
    assert main([command, str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"] is False
    assert "rout: " in json.loads(out)["error"]
    assert "rout: " in err


@pytest.mark.parametrize("arguments", [[], ["go"], ["run"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_run_says_where_the_page_is_and_ends_cleanly_when_asked(broker: Broker, tmp_path: Path) -> None:
    path = written(tmp_path, broker.url)
    gateway = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "run", str(path), "--json"] if (ROOT / "gateway/__main__.py").exists() else
        [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())", "run", str(path), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert gateway.stdout is not None
        said = json.loads(gateway.stdout.readline())
        assert said["ok"] is True
        assert said["url"].startswith("http://127.0.0.1:")
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    finally:
        gateway.kill()
        gateway.wait()
        assert gateway.stdout is not None
        gateway.stdout.close()
