"""What is copied to a Pi, by the tools that will read it there: systemd's, cloud-init's, udev's, pip, the agent's own command."""

import argparse
import base64
import configparser
import fnmatch
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edge.cli
from tests.services import require_binary

PI = Path(__file__).parents[2] / "firmware_configs" / "pi"
UNITS = sorted((PI / "units").glob("*.service"))
WAIT_S = 60


# --- systemd ----------------------------------------------------------------------------------------


def machine_with(units: list[Path], programs: list[str], root: Path) -> Path:
    """A root folder with systemd's own units, these, and programs that only have to be there."""
    shutil.copytree("/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/systemd/system").mkdir(parents=True)
    for unit in units:
        shutil.copy(unit, root / "etc/systemd/system")
    for program in programs:
        path = root / program.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n", encoding="ascii")
        path.chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    return root


def verified(root: Path, units: list[Path]) -> str:
    """What systemd has to say against them: it tells of unknown words and goes on, so that its exit code says too little."""
    argv: list[str | Path] = [
        require_binary("systemd-analyze"),
        "verify",
        "--man=no",
        f"--root={root}",
        *(unit.name for unit in units),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WAIT_S)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


@pytest.mark.services
def test_systemd_has_nothing_against_the_nodes_units(tmp_path: Path) -> None:
    require_binary("systemd-analyze")
    programs = ["/opt/satomori/bin/satomori-edge", "/usr/local/sbin/satomori-install"]
    programs += ["/usr/bin/sh", "/usr/bin/apt-get", "/usr/bin/systemctl"]
    root = machine_with(UNITS, programs, tmp_path / "root")
    assert verified(root, UNITS) == ""
    for name, target in (("readonly.conf", "satomori-edge"), ("readonly-next.conf", "satomori-install")):
        (root / f"etc/systemd/system/{target}.service.d").mkdir()
        shutil.copy(PI / name, root / f"etc/systemd/system/{target}.service.d")
    assert verified(root, UNITS) == ""


@pytest.mark.services
@pytest.mark.parametrize(("unit", "most"), [("satomori-edge", 2.0), ("satomori-clock", 2.0), ("satomori-claim", 2.0)])
def test_a_unit_is_shut_in_as_far_as_systemd_can_see(unit: str, most: float) -> None:
    """`systemd-analyze security` goes from 0, shut in, to 10."""
    file = PI / "units" / f"{unit}.service"
    argv: list[str | Path] = [require_binary("systemd-analyze"), "security", "--offline=true", "--no-pager", file]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WAIT_S).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= most


def test_the_agent_reaches_what_it_reads_and_can_blink() -> None:
    unit = (PI / "units" / "satomori-edge.service").read_text(encoding="utf-8")
    for device in ("char-gpiochip", "char-ttyUSB", "char-ttyACM", "char-ttyAMA", "char-video4linux"):
        assert f"DeviceAllow={device} rw\n" in unit
    assert "PrivateDevices" not in unit
    assert "PrivateNetwork" not in unit
    assert "AF_UNIX" in unit  # D-Bus, and with it BlueZ
    assert "ReadWritePaths=-/sys/devices/platform/leds\n" in unit
    assert "SupplementaryGroups=gpio dialout video bluetooth\n" in unit


def test_every_call_of_the_agent_is_one_that_it_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[argparse.Namespace] = []

    def understand(arguments: argparse.Namespace) -> int:
        called.append(arguments)
        return 0

    monkeypatch.setattr(edge.cli, "_COMMANDS", {name: understand for name, _ in edge.cli.COMMANDS})
    for unit in UNITS:
        for line in unit.read_text(encoding="utf-8").splitlines():
            if line.startswith("ExecStart=/opt/satomori/bin/satomori-edge "):
                assert edge.cli.main(line.split()[1:]) == 0
    state = Path("/var/lib/satomori-edge")
    by_name = {one.command: one for one in called}
    assert by_name.keys() == {"run", "clock", "claim"}
    assert by_name["run"].config == by_name["clock"].config == state / "edge.toml"
    assert by_name["claim"].state == state
    assert (by_name["claim"].code, by_name["claim"].gateway) == ("${SATOMORI_CLAIM}", "${SATOMORI_GATEWAY}")


def test_what_a_claim_needs_is_said_to_it_and_a_claimed_node_never_claims_again() -> None:
    unit = (PI / "units" / "satomori-claim.service").read_text(encoding="utf-8")
    assert "ConditionPathExists=!/var/lib/satomori-edge/edge.toml\n" in unit
    assert "EnvironmentFile=/etc/satomori/claim\n" in unit
    assert "Restart=on-failure\n" in unit
    assert "RestartPreventExitStatus=2\n" in unit
    assert "OnSuccess=satomori-edge.service\n" in unit


KNOWN = {
    "journald.conf": {"Journal": {"Storage", "RuntimeMaxUse", "RateLimitIntervalSec", "RateLimitBurst"}},
    "timesyncd.conf": {"Time": {"NTP", "PollIntervalMinSec", "PollIntervalMaxSec", "ConnectionRetrySec"}},
    "system.conf": {"Manager": {"RuntimeWatchdogSec", "RebootWatchdogSec"}},
}
"""By journald.conf(5), timesyncd.conf(5) and systemd-system.conf(5) of systemd 252; of these files it has no checker."""


@pytest.mark.parametrize("name", KNOWN)
def test_systemds_own_settings_are_ones_that_it_knows(name: str) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(PI / "etc" / name, encoding="utf-8")
    assert {section: set(parser[section]) for section in parser.sections()} == KNOWN[name]


# --- config.txt -------------------------------------------------------------------------------------

CONFIG_KEYS = {"enable_uart", "disable_splash", "camera_auto_detect", "dtparam", "dtoverlay"}
DTPARAMS = {"watchdog", "i2c_arm", "act_led_trigger"}
DTOVERLAYS = {"disable-bt", "disable-wifi", "i2c-rtc"}
"""By Raspberry Pi's documentation of config.txt and the README of its overlays. The firmware passes over all else."""


def test_config_txt_has_only_what_the_firmware_knows() -> None:
    said = []
    for line in (PI / "config.txt").read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#")
        if not re.fullmatch(r"[a-z_]+=\S+", text):
            assert line == "" or line.startswith("# ") or line == "[all]", line
            continue
        key, _, value = text.partition("=")
        assert key in CONFIG_KEYS, line
        if key == "dtparam":
            assert value.partition("=")[0] in DTPARAMS, line
        if key == "dtoverlay":
            assert value.partition(",")[0] in DTOVERLAYS, line
        if line == text:
            said.append(line)
    assert "dtparam=watchdog=on" in said
    assert "enable_uart=1" in said


# --- udev -------------------------------------------------------------------------------------------

RULES = PI / "70-satomori.rules"
TOKEN = re.compile(r'\s*(?P<key>[A-Z]+)(?:\{(?P<name>\w+)\})?(?P<op>==|!=|\+=|=)"(?P<value>[^"]*)"\s*(?:,|$)')
MATCHES = {"SUBSYSTEM", "ACTION", "KERNEL", "ATTRS", "ENV"}
SETS = {"SYMLINK", "ENV", "GROUP", "MODE", "RUN"}


def rules() -> list[list[dict[str, str]]]:
    """The rules as tokens; fails on what udev's grammar (udev(7)) does not have."""
    parsed = []
    for line in RULES.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        tokens, at = [], 0
        while at < len(line):
            found = TOKEN.match(line, at)
            assert found, f"no rule: {line[at:]!r}"
            tokens.append(found.groupdict(default=""))
            at = found.end()
            key, compares = tokens[-1]["key"], tokens[-1]["op"] in ("==", "!=")
            assert key in (MATCHES if compares else SETS), tokens[-1]
        parsed.append(tokens)
    return parsed


def after_udev(device: dict[str, str]) -> tuple[set[str], list[str]]:
    """The links and programs that the rules give a device; its properties are named as in a rule."""
    have, links, run = dict(device), set(), []

    def holds(token: dict[str, str]) -> bool:
        name = token["key"] + (f"{{{token['name']}}}" if token["name"] else "")
        return any(fnmatch.fnmatchcase(have.get(name, ""), one) for one in token["value"].split("|"))

    def meant(text: str) -> str:
        return re.sub(r"\$env\{(\w+)\}", lambda found: have.get(f"ENV{{{found[1]}}}", ""), text).replace("%p", "/devices/x")

    for tokens in rules():
        if all(holds(token) == (token["op"] == "==") for token in tokens if token["op"] in ("==", "!=")):
            for token in tokens:
                if token["key"] == "ENV" and token["op"] == "=":
                    have[f"ENV{{{token['name']}}}"] = meant(token["value"])
                elif token["key"] == "SYMLINK":
                    links.add(meant(token["value"]))
                elif token["key"] == "RUN":
                    run.append(meant(token["value"]))
    return links, run


def usb_serial(vendor: str, product: str, serial: str = "") -> dict[str, str]:
    known = {"SUBSYSTEM": "tty", "ACTION": "add", "KERNEL": "ttyUSB0", "ATTRS{idVendor}": vendor, "ATTRS{idProduct}": product}
    return known | ({"ENV{ID_SERIAL_SHORT}": serial} if serial else {})


def test_receivers_and_counters_have_names_that_stay() -> None:
    assert after_udev(usb_serial("10c4", "ea60", "0001"))[0] == {"satomori/lora", "satomori/lora-0001"}
    assert after_udev(usb_serial("303a", "1001", "AB"))[0] == {"satomori/lora", "satomori/lora-AB"}
    assert after_udev(usb_serial("0403", "6015", "D1"))[0] == {"satomori/counter", "satomori/counter-D1"}
    assert after_udev(usb_serial("1a86", "7523"))[0] == {"satomori/counter"}
    assert after_udev(usb_serial("dead", "beef", "1"))[0] == set()
    assert after_udev({"SUBSYSTEM": "tty", "KERNEL": "ttyAMA0"})[0] == {"satomori/pins"}


def test_the_agents_group_may_blink_the_boards_led() -> None:
    links, run = after_udev({"SUBSYSTEM": "leds", "ACTION": "add", "KERNEL": "ACT"})
    assert links == set()
    assert run == [f"/bin/{what} /sys/devices/x/brightness /sys/devices/x/trigger" for what in ("chgrp gpio", "chmod g+w")]


@pytest.mark.services
def test_udev_has_nothing_against_the_rules() -> None:
    udevadm = shutil.which("udevadm", path="/usr/bin:/bin:/usr/sbin:/sbin")
    version = re.search(
        r"\d+", subprocess.run([udevadm, "--version"], capture_output=True, text=True, check=True).stdout if udevadm else ""
    )
    if udevadm is None or version is None or int(version[0]) < 254:
        # Not a service that could be installed: this Debian has no such tool. The tests above read the rules by udev(7).
        pytest.skip("udevadm verify came with systemd 254, so udev's own parser was NOT asked")
    done = subprocess.run([udevadm, "verify", "--resolve-names=never", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- The first boot's installation ------------------------------------------------------------------


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel with these files, as pip takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}\n"
        for file, text in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}).items():
            archive.writestr(file, text)
    return path


class Card:
    """A boot partition with a small agent that needs one package, and the place where it is installed."""

    def __init__(self, home: Path) -> None:
        self.folder, self.target = home / "boot" / "satomori", home / "opt" / "satomori"
        needed = wheel(self.folder / "wheels", "needed_thing", {"needed_thing.py": "WORD = 'whole'\n"})
        agent = "import needed_thing\ndef main():\n    print(needed_thing.WORD)\n"
        entry = "[console_scripts]\nsatomori-edge = agent_of_test:main\n"
        wheel(self.folder, "satomori", {"agent_of_test.py": agent, "satomori-1.0.dist-info/entry_points.txt": entry})
        self.lock(hashlib.sha256(needed.read_bytes()).hexdigest())

    def lock(self, sha256: str) -> None:
        (self.folder / "edge.txt").write_text(f"needed-thing==1.0 --hash=sha256:{sha256}\n", encoding="ascii")

    def install(self) -> subprocess.CompletedProcess[str]:
        places = {"SATOMORI_BOOT": str(self.folder.parent), "SATOMORI_TARGET": str(self.target), "SATOMORI_PACKAGES": ""}
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        return subprocess.run(
            ["/bin/sh", PI / "install.sh"],
            env=places | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_the_agent_is_installed_from_the_card_without_internet_and_only_once(card: Card) -> None:
    done = card.install()
    assert done.returncode == 0, done.stderr
    assert "installed satomori-1.0-py3-none-any.whl" in done.stderr
    said = subprocess.run([card.target / "bin/satomori-edge"], capture_output=True, text=True, check=True, timeout=WAIT_S).stdout
    assert said == "whole\n"
    shutil.rmtree(card.folder)  # not even looked at any more
    again = card.install()
    assert (again.returncode, again.stderr) == (0, "")


def test_what_is_not_what_the_lock_says_is_not_installed_at_all(card: Card) -> None:
    card.lock("0" * 64)
    done = card.install()
    assert done.returncode != 0
    assert "HASH" in done.stderr.upper()
    assert not card.target.exists()


def test_what_the_lock_has_no_hash_for_is_not_installed_at_all(card: Card) -> None:
    (card.folder / "edge.txt").write_text("needed-thing==1.0\n", encoding="ascii")
    done = card.install()
    assert done.returncode != 0
    assert "--require-hashes" in done.stderr
    assert not card.target.exists()


def test_a_card_without_the_agent_says_what_to_copy(card: Card) -> None:
    (card.folder / "satomori-1.0-py3-none-any.whl").unlink()
    done = card.install()
    assert done.returncode == 1
    assert "satomori-*.whl is missing: copy it to the card's boot partition" in done.stderr
