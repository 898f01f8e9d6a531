"""`satomori-gateway node image`: what a new node's card gets, as cloud-init itself reads it."""

import argparse
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.nodes.image import Wifi, add_options, meta_data, network_config, user_data, write_image
from tests.services import require_binary

ROOT = Path(__file__).parents[3]
CODE = "7K3M-9QWX-2B4D-HT6V"
GATEWAY = "https://gateway.example:8443"
KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbc= 山田 "x": #'
WAIT_S = 60


def told(*argv: str | Path) -> tuple[int, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=WAIT_S)
    return done.returncode, done.stdout + done.stderr


def files_in(text: str) -> dict[str, dict[str, str]]:
    """What user-data writes, by path."""
    entries = [json.loads(line.removeprefix("  - ")) for line in text.splitlines() if line.startswith('  - {"path"')]
    return {entry["path"]: entry for entry in entries}


@pytest.fixture
def asked(tmp_path: Path) -> argparse.Namespace:
    """`satomori-gateway node image kitayama-03 --out ...`, and nothing more."""
    return parsed("kitayama-03", "--out", tmp_path / "card")


def parsed(*argv: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args([str(one) for one in argv])


# --- user-data --------------------------------------------------------------------------------------


@pytest.mark.services
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("ssh_keys", [(), (KEY,)])
def test_cloud_init_takes_the_user_data(read_only: bool, ssh_keys: tuple[str, ...], tmp_path: Path) -> None:
    cloud_init = require_binary("cloud-init")
    path = tmp_path / "user-data"
    path.write_text(user_data("kitayama-03", CODE, GATEWAY, read_only=read_only, ssh_keys=ssh_keys), encoding="utf-8")
    code, said = told(cloud_init, "schema", "--config-file", path)
    assert code == 0, said
    assert said.startswith("Valid")


@pytest.mark.services
def test_cloud_inits_check_would_see_a_mistake(tmp_path: Path) -> None:
    """So that the test above is worth something."""
    path = tmp_path / "user-data"
    text = user_data("kitayama-03", CODE, GATEWAY)
    path.write_text(text.replace("lock_passwd: true", "lock_passwd: [yes, no]"), encoding="utf-8")
    code, said = told(require_binary("cloud-init"), "schema", "--config-file", path)
    assert code != 0
    assert "lock_passwd" in said


def test_the_code_is_in_it_once_and_only_root_may_read_its_file() -> None:
    text = user_data("kitayama-03", CODE.lower().replace("-", ""), GATEWAY + "/")
    assert text.count(CODE) == 1
    assert CODE.replace("-", "") not in text
    claim = files_in(text)["/etc/satomori/claim"]
    assert claim["permissions"] == "0600"
    assert claim["owner"] == "root:root"
    assert claim["content"] == f"SATOMORI_CLAIM={CODE}\nSATOMORI_GATEWAY={GATEWAY}\n"
    assert CODE not in meta_data("kitayama-03", CODE)
    assert CODE[:4].lower() in json.loads(meta_data("kitayama-03", CODE))["instance-id"]


def test_it_writes_every_unit_that_it_starts() -> None:
    for read_only in (False, True):
        text = user_data("kitayama-03", CODE, GATEWAY, read_only=read_only)
        started = re.search(r"systemctl, enable, (.*)\]", text)
        assert started
        written = {path.rpartition("/")[2] for path in files_in(text) if path.startswith("/etc/systemd/system/")}
        assert set(started[1].split(", ")) <= written
        assert ("satomori-readonly.service" in written) == read_only
        assert not re.search(r"@[A-Z_]+@", text)


def test_the_node_asks_the_gateway_for_the_time() -> None:
    timesyncd = "/etc/systemd/timesyncd.conf.d/satomori.conf"
    assert "\nNTP=gateway.example\n" in files_in(user_data("kitayama-03", CODE, GATEWAY))[timesyncd]["content"]
    other = user_data("kitayama-03", CODE, GATEWAY, time_server="192.0.2.7")
    assert "\nNTP=192.0.2.7\n" in files_in(other)[timesyncd]["content"]


def test_a_read_only_node_keeps_its_state_on_its_own_partition_or_stands_still() -> None:
    text = user_data("kitayama-03", CODE, GATEWAY, read_only=True)
    assert '  - ["LABEL=satomori-state", "/var/lib/satomori-edge", "ext4"' in text
    drop_in = files_in(text)["/etc/systemd/system/satomori-edge.service.d/readonly.conf"]["content"]
    assert "AssertPathIsMountPoint=/var/lib/satomori-edge" in drop_in


@pytest.mark.parametrize(
    ("arguments", "options", "fault"),
    [
        (("Kitayama 03", CODE, GATEWAY), {}, "no node name"),
        (("kitayama-03", "7K3M", GATEWAY), {}, "code on the box"),
        (("kitayama-03", CODE, "http://gateway.example"), {}, "https"),
        (("kitayama-03", CODE, "https://gateway.example/x\nruncmd: [reboot]"), {}, "https"),
        (("kitayama-03", CODE, GATEWAY), {"time_zone": "Asia/Tokyo\nruncmd: [reboot]"}, "time zone"),
        (("kitayama-03", CODE, GATEWAY), {"time_server": "a\nFallbackNTP=b"}, "host name"),
        (("kitayama-03", CODE, GATEWAY), {"ssh_keys": ("-----BEGIN OPENSSH PRIVATE KEY-----",)}, "public SSH key"),
        (("kitayama-03", CODE, GATEWAY), {"ssh_keys": (KEY + "\nruncmd: [reboot]",)}, "public SSH key"),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_reason(
    arguments: tuple[str, str, str], options: dict[str, str], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        user_data(*arguments, **options)  # type: ignore[arg-type]


# --- network-config ---------------------------------------------------------------------------------


@pytest.mark.services
@pytest.mark.parametrize("wifi", [None, Wifi('里守り "x": y', "pass: \"word\" # \\ 'x'")], ids=["cable", "wifi"])
def test_cloud_init_takes_the_network_config(wifi: Wifi | None, tmp_path: Path) -> None:
    cloud_init = require_binary("cloud-init")
    path = tmp_path / "network-config"
    path.write_text(network_config(wifi), encoding="utf-8")
    if "--schema-type" in told(cloud_init, "schema", "--help")[1]:  # cloud-init >= 24.1
        code, said = told(cloud_init, "schema", "--schema-type", "network-config", "--config-file", path)
        assert code == 0, said
    made = (
        "devel",
        "net-convert",
        "--network-data",
        path,
        "--kind",
        "yaml",
        "-O",
        "netplan",
        "-d",
        tmp_path / "made",
        "-D",
        "debian",
    )
    code, said = told(cloud_init, *made)
    assert code == 0, said
    (netplan,) = [one.read_text(encoding="utf-8") for one in (tmp_path / "made").rglob("*.yaml")]
    assert "eth0" in netplan
    assert ("wlan0" in netplan) == (wifi is not None)
    if wifi is not None:
        assert "password: 'pass: \"word\" # \\ ''x'''" in netplan


@given(st.text(), st.text())
@example("a" * 33, "12345678")
@example("里" * 11, "12345678")
@settings(max_examples=100)
def test_no_name_and_no_password_gets_out_of_its_quotes(ssid: str, password: str) -> None:
    try:
        text = network_config(Wifi(ssid, password))
    except ValueError:
        return
    *_, name, word = text.splitlines()
    assert len(text.splitlines()) == len(network_config(Wifi("a", "12345678")).splitlines())
    assert json.loads(name.strip().removesuffix(":")) == ssid
    assert json.loads(word.strip().removeprefix("password: ")) == password


# --- The command ------------------------------------------------------------------------------------


def test_the_card_gets_three_files_that_only_their_owner_may_read(asked: argparse.Namespace, tmp_path: Path) -> None:
    folder = write_image(asked, GATEWAY, lambda: CODE)
    assert folder == tmp_path / "card"
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("user-data", "meta-data", "network-config"), 0o600
    )
    assert CODE in (folder / "user-data").read_text(encoding="utf-8")


def test_a_second_card_is_written_over_the_first_only_when_that_is_wanted(asked: argparse.Namespace) -> None:
    """Its code would make the first one's void, which may be in a box on the mountain already."""
    folder = write_image(asked, GATEWAY, lambda: CODE)
    made: list[str] = []

    def another() -> str:
        made.append(CODE.replace("7K3M", "8888"))
        return made[-1]

    with pytest.raises(ConfigError, match=r"user-data .*already.* --force"):
        write_image(asked, GATEWAY, another)
    assert not made
    assert CODE in (folder / "user-data").read_text(encoding="utf-8")
    asked.force = True
    write_image(asked, GATEWAY, another)
    assert made[0] in (folder / "user-data").read_text(encoding="utf-8")


def test_wifi_and_keys_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("# a secret\n", encoding="utf-8")
    (tmp_path / "keys").write_text(f"# who may log in\n{KEY}\n\n", encoding="utf-8")
    options: list[str | Path] = [
        "--wifi",
        "山の家",
        "--wifi-password-file",
        tmp_path / "password",
        "--ssh-key-file",
        tmp_path / "keys",
    ]
    folder = write_image(parsed("kitayama-03", "--out", tmp_path / "card", *options), GATEWAY, lambda: CODE)
    assert '"山の家":\n          password: "# a secret"\n' in (folder / "network-config").read_text(encoding="utf-8")
    assert f"  - {json.dumps(KEY, ensure_ascii=False)}\n" in (folder / "user-data").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--wifi", "x"], "--wifi and --wifi-password-file go together"),
        (["--wifi", "x", "--wifi-password-file", "absent"], "--wifi-password-file: absent can't be read"),
        (["--ssh-key-file", "/dev/null"], "--ssh-key-file: /dev/null should hold at least one line"),
        (["--time-zone", "Tokyo; reboot"], "no time zone"),
        (["--time-zone", "Asia/Tokio"], "'Asia/Tokio' is no time zone that this machine knows"),
        (["--time-zone", "Asia"], "no time zone"),
        (["--out", "/dev/null/card"], "can't be written"),
    ],
)
def test_a_mistake_costs_no_code(options: list[str], fault: str, tmp_path: Path) -> None:
    """A new code makes the one void that may be on the box already."""

    def never() -> str:
        raise AssertionError("a code was made")

    argv = ["kitayama-03", "--out", str(tmp_path / "card"), *options]
    with pytest.raises(ConfigError, match=re.escape(fault)):
        write_image(parsed(*argv), GATEWAY, never)


def test_an_installed_gateway_has_the_files_too(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=WAIT_S,
    )
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        packed = {name for name in archive.namelist() if name.startswith("firmware_configs/pi/")}
    folder = ROOT / "firmware_configs"
    assert packed == {str(path.relative_to(ROOT)) for path in (folder / "pi").rglob("*") if path.is_file()}
