"""What is copied to the gateway's machine beside the brokers: units by systemd, the time service by chrony and a question."""

import argparse
import os
import re
import shlex
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import gateway.cli
from edge.contract.broker import parse_url
from gateway.config import GatewayConfig, StateConfig, load
from gateway.roles import ROLES
from gateway.store.victoriametrics import VictoriaMetricsStore, VictoriaMetricsStoreConfig
from gateway.terminal import Told
from simulators.ports import free_port
from tests.firmware.test_pi import machine_with, verified
from tests.gateway.backup.saved import furnished
from tests.postgresql import running as postgresql
from tests.services import listening, require_binary, running

FOLDER = Path(__file__).parents[2] / "firmware_configs" / "gateway"
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".service", ".path", ".timer"))
PROGRAMS = ["/opt/satomori/bin/satomori-gateway", "/usr/local/bin/nats-server"]
PROGRAMS += [f"/usr/bin/{name}" for name in ("install", "systemctl", "kill", "sh", "find", "victoria-metrics")]
WAIT_S = 20


@pytest.mark.services
@pytest.mark.parametrize(("broker", "role"), [("mosquitto", "ingest"), ("nats", "api")])
def test_systemd_has_nothing_against_the_gateways_units(broker: str, role: str, tmp_path: Path) -> None:
    root = machine_with([unit for unit in UNITS if "@" not in unit.name], PROGRAMS, tmp_path / "root")
    for unit in UNITS:
        if "@" in unit.name:
            text = unit.read_text(encoding="utf-8")
            name = unit.name.replace("@.", f"@{role if 'gateway' in unit.name else broker}.")
            (root / "etc/systemd/system" / name).write_text(text, encoding="utf-8")
    debians = root / "etc/systemd/system/victoria-metrics.service"
    debians.write_text("[Service]\nExecStart=/usr/bin/victoria-metrics $ARGS\n", encoding="utf-8")
    debians.with_name(f"{debians.name}.d").mkdir()
    shutil.copy(FOLDER / "victoria-metrics.conf", debians.with_name(f"{debians.name}.d") / "satomori.conf")
    made = sorted(path for path in (root / "etc/systemd/system").glob("*.*") if path.is_file())
    assert {unit.suffix for unit in made} == {".path", ".service", ".timer"}
    assert verified(root, made) == ""


@pytest.mark.services
@pytest.mark.parametrize(
    ("unit", "most"), [("satomori-gateway", 2.0), ("satomori-gateway@", 2.0), ("satomori-gateway-backup", 2.0), ("nats", 2.5)]
)
def test_a_unit_is_shut_in_as_far_as_systemd_can_see(unit: str, most: float) -> None:
    file = FOLDER / f"{unit}.service"
    argv: list[str | Path] = [require_binary("systemd-analyze"), "security", "--offline=true", "--no-pager", file]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WAIT_S).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= most


def test_one_of_several_processes_is_shut_in_as_the_only_one_is() -> None:
    one, several = ((FOLDER / f"satomori-gateway{at}.service").read_text(encoding="utf-8").splitlines() for at in ("", "@"))
    own = ("# The gateway:", "Description=", "After=", "ExecStart=")
    assert set(one) - set(several) == {line for line in one if line.startswith(own)}


def commands(unit: str) -> list[list[str]]:
    """What a service runs, as systemd splits it."""
    text = (FOLDER / unit).read_text(encoding="utf-8").replace("\\\n", " ").replace("$$", "$")
    return [shlex.split(line) for line in re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_a_unit_that_the_program_understands(role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (argv,) = commands("satomori-gateway@.service")
    assert argv[0] == PROGRAMS[0]
    asked: list[argparse.Namespace] = []

    def run(_: GatewayConfig, arguments: argparse.Namespace) -> Told:
        asked.append(arguments)
        return Told(0, {}, [])

    monkeypatch.setattr("gateway.cli.load", lambda _: load(furnished(tmp_path)))
    monkeypatch.setattr("gateway.run_cli._run", run)
    given = " ".join(argv[1:]).replace("%i", role).replace("$SATOMORI_RUN", "--metrics 9101")
    assert gateway.cli.main(given.split()) == 0
    assert (asked[0].role, asked[0].metrics) == ([role], "9101")


def test_each_night_a_backup_is_made_and_tried_and_old_ones_go(tmp_path: Path) -> None:
    """The unit's own commands, one after the other, as systemd runs them; with our program and folders."""
    config, shelf, program = furnished(tmp_path / "gateway"), tmp_path / "backups", tmp_path / "satomori-gateway"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from gateway.cli import main; raise SystemExit(main())" "$@"\n')
    program.chmod(0o755)
    shelf.mkdir()
    for name, days in (("satomori-20260101-030000", 31), ("satomori-20260102-030000", 29), ("of-somebody-else", 99)):
        (shelf / name).mkdir()
        os.utime(shelf / name, (time.time() - days * 86_400 - 60,) * 2)
    for argv in commands("satomori-gateway-backup.service"):
        ours = [
            word.replace(PROGRAMS[0], str(program)).replace("/var/backups/satomori", str(shelf))
            .replace("/etc/satomori/gateway.toml", str(config))
            for word in argv
        ]  # fmt: skip
        done = subprocess.run(ours, capture_output=True, text=True, check=False, cwd=FOLDER.parents[1], timeout=60,
                              env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1])})  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    kept = sorted(path.name for path in shelf.iterdir())
    assert kept[:2] == ["of-somebody-else", "satomori-20260102-030000"]
    assert len(kept) == 3, "and the new one"
    with closing(sqlite3.connect(tmp_path / "gateway" / "state.db")) as state:
        noted = {name for (name,) in state.execute("SELECT name FROM cursors")}
    assert {"backup_us", "restore_tested_us"} <= noted


@pytest.mark.services
def test_the_gateway_takes_a_victoriametrics_that_is_started_so(tmp_path: Path) -> None:
    require_binary("victoria-metrics")
    port = free_port()
    (argv,) = commands("victoria-metrics.conf")
    ours = [
        word.replace("127.0.0.1:8428", f"127.0.0.1:{port}").replace("/var/lib/victoria-metrics", str(tmp_path))
        for word in argv if word != "$ARGS"
    ]  # fmt: skip
    with running(ours, lambda: listening(port)):
        url, journal = f"http://127.0.0.1:{port}", tmp_path / "journal"
        store = VictoriaMetricsStore(VictoriaMetricsStoreConfig(type="victoriametrics", url=url, journal=journal))
        try:
            store.check()
        finally:
            store.close()


@pytest.mark.services
def test_postgresql_understands_who_may_come() -> None:
    rules = (FOLDER / "pg_hba.conf").read_text(encoding="utf-8")
    for url in re.findall(r'url = "(.*)"', rules):
        assert StateConfig(url=url).is_shared
    with postgresql() as server:
        ((file,),) = server.run("SHOW hba_file")
        Path(str(file)).write_text(rules + Path(str(file)).read_text(encoding="utf-8"), encoding="utf-8")
        found = server.run(
            "SELECT type || ' ' || array_to_string(user_name, ',') || ' ' || auth_method FROM pg_hba_file_rules "
            "WHERE 'satomori' = ANY (database) ORDER BY line_number"
        )
        wrong = server.run("SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL")
    assert wrong in ([], [("hostssl record cannot match because SSL is disabled",)]), "a test's server has no certificate"
    assert [rule for (rule,) in found] == [
        "local satomori,postgres peer", "hostssl satomori scram-sha-256", "local all reject", "host all reject",
    ]  # fmt: skip


def test_the_configuration_that_the_readme_writes_is_one(tmp_path: Path) -> None:
    """With one broker as with the other, the port is that of the gateway's own listener."""
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    written = re.search(r"tee /etc/satomori/gateway.toml <<'END'\n(.*?)\nEND\n", text, re.DOTALL)
    assert written
    path = tmp_path / "gateway.toml"
    path.write_text(written[1], encoding="utf-8")
    config = load(path)
    assert config.nodes is not None
    mosquitto = (FOLDER / "mosquitto.conf").read_text(encoding="utf-8")
    assert f"listener {parse_url(config.broker.url)[1]} 127.0.0.1" in mosquitto
    broker_unit = (FOLDER / "satomori-broker@.service").read_text(encoding="utf-8")
    assert f"{config.nodes.folder}/broker.pem" in broker_unit


def test_every_file_that_the_readme_copies_is_here() -> None:
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8").split("## 2. ")[0]
    copied = [word for line in re.findall(r"^sudo cp (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    installed = {"nats.conf", "nats-cluster.conf", "pg_hba.conf"}  # otherwise than by cp
    assert {FOLDER / name for name in {*copied, *installed}} == set(FOLDER.iterdir())
    assert all(name in text for name in installed)


# --- The time ---------------------------------------------------------------------------------------

NTP_EPOCH_S = 2_208_988_800
"""1970 in seconds of NTP, which counts from 1900 (RFC 5905, section 6)."""


class Answer:
    """A server's answer to an SNTP question (RFC 5905, section 7.3 and 14)."""

    def __init__(self, packet: bytes) -> None:
        first, self.stratum = packet[0], packet[1]
        self.leap, self.mode = first >> 6, first & 7
        self.utc_s = struct.unpack(">I", packet[40:44])[0] - NTP_EPOCH_S


def ask(port: int) -> Answer | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect(("127.0.0.1", port))
        try:
            sock.send(bytes([0x23]) + bytes(39) + struct.pack(">II", 1, 1))  # version 4, client
            return Answer(sock.recv(512))
        except OSError:
            return None


def conf(home: Path, port: int) -> Path:
    """Ours, as chrony reads it, and what keeps a test from the machine: its own port and files, loopback only."""
    own = f"port {port}\nbindaddress 127.0.0.1\ncmdport 0\npidfile {home}/chronyd.pid\nbindcmdaddress /\nallow 127.0.0.1\n"
    path = home / "chrony.conf"
    path.write_text((FOLDER / "chrony.conf").read_text(encoding="utf-8") + own, encoding="utf-8")
    return path


@pytest.mark.services
def test_chrony_understands_every_line() -> None:
    done = subprocess.run(
        [require_binary("chronyd"), "-p", "-f", FOLDER / "chrony.conf"],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    kept = [line for line in (FOLDER / "chrony.conf").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert done.stdout.splitlines() == kept


@pytest.mark.services
def test_a_gateway_without_internet_tells_its_nodes_the_time(tmp_path: Path) -> None:
    """-x: this chronyd may not touch the machine's clock; -U: nor does it need to be root."""
    port = free_port(socket.SOCK_DGRAM)
    user = ["-u", "root"] if os.geteuid() == 0 else []
    argv: list[str | Path] = [require_binary("chronyd"), "-d", "-x", "-U", *user, "-f", conf(tmp_path, port)]
    with running(argv, lambda: ask(port) is not None):
        answer = ask(port)
        assert answer is not None
        assert (answer.mode, answer.stratum) == (4, 10)
        assert answer.leap != 3, "3 says: do not believe me"
        assert abs(answer.utc_s - time.time()) <= 2
