"""What is copied to the gateway's machine beside the brokers: units by systemd, the time service by chrony and a question."""

import os
import re
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from edge.contract.broker import parse_url
from gateway.config import load
from simulators.ports import free_port
from tests.firmware.test_pi import machine_with, verified
from tests.services import require_binary, running

FOLDER = Path(__file__).parents[2] / "firmware_configs" / "gateway"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.path")])
PROGRAMS = ["/opt/satomori/bin/satomori-gateway", "/usr/local/bin/nats-server"]
PROGRAMS += [f"/usr/bin/{name}" for name in ("install", "systemctl", "kill")]
WAIT_S = 20


@pytest.mark.services
@pytest.mark.parametrize("broker", ["mosquitto", "nats"])
def test_systemd_has_nothing_against_the_gateways_units(broker: str, tmp_path: Path) -> None:
    root = machine_with([unit for unit in UNITS if "@" not in unit.name], PROGRAMS, tmp_path / "root")
    for unit in UNITS:
        if "@" in unit.name:
            text = unit.read_text(encoding="utf-8")
            (root / "etc/systemd/system" / unit.name.replace("@.", f"@{broker}.")).write_text(text, encoding="utf-8")
    made = sorted((root / "etc/systemd/system").glob("*.*"))
    assert {unit.suffix for unit in made} == {".path", ".service"}
    assert verified(root, made) == ""


@pytest.mark.services
@pytest.mark.parametrize(("unit", "most"), [("satomori-gateway", 2.0), ("nats", 2.5)])
def test_a_unit_is_shut_in_as_far_as_systemd_can_see(unit: str, most: float) -> None:
    file = FOLDER / f"{unit}.service"
    argv: list[str | Path] = [require_binary("systemd-analyze"), "security", "--offline=true", "--no-pager", file]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WAIT_S).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= most


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
    assert {FOLDER / name for name in copied} | {FOLDER / "nats.conf"} == set(FOLDER.iterdir())


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
