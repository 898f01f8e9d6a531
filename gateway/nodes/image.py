"""What is copied to a new node's card: cloud-init's user-data with the one-time code, its meta-data and network-config. Text.

The files come from `firmware_configs/pi`, which is a package of data beside this one. User-data is YAML (cloud-init reads no
other); what is put into it is JSON, which is YAML too, so that no name and no password can end a line and begin another.
"""

import argparse
import importlib.resources
import ipaddress
import json
import re
from collections.abc import Callable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.contract.names import is_name
from edge.contract.remote import CODE_LENGTH, normal_code
from gateway.errors import ConfigError
from gateway.nodes.authority import write_whole

STATE = "/var/lib/satomori-edge"
STATE_LABEL = "satomori-state"
"""The file system of a node with a read-only root that its state lies on."""
FOLDER = "satomori"
"""On the boot partition: what the agent is installed from."""
INSTALL_UNIT, READONLY_UNIT = "satomori-install.service", "satomori-readonly.service"
UNITS = ("satomori-clock.service", INSTALL_UNIT, "satomori-claim.service", "satomori-edge.service")

_UNIT_FOLDER = "/etc/systemd/system"
_COPIED = {
    "install.sh": ("/usr/local/sbin/satomori-install", "0755"),
    "70-satomori.rules": ("/etc/udev/rules.d/70-satomori.rules", "0644"),
    "etc/journald.conf": ("/etc/systemd/journald.conf.d/satomori.conf", "0644"),
    "etc/timesyncd.conf": ("/etc/systemd/timesyncd.conf.d/satomori.conf", "0644"),
    "etc/system.conf": ("/etc/systemd/system.conf.d/satomori.conf", "0644"),
} | {f"units/{unit}": (f"{_UNIT_FOLDER}/{unit}", "0644") for unit in UNITS}
_COPIED_READONLY = {
    f"units/{READONLY_UNIT}": (f"{_UNIT_FOLDER}/{READONLY_UNIT}", "0644"),
    "readonly.conf": (f"{_UNIT_FOLDER}/satomori-edge.service.d/readonly.conf", "0644"),
    "readonly-next.conf": (f"{_UNIT_FOLDER}/{INSTALL_UNIT}.d/readonly.conf", "0644"),
}


class Wifi(NamedTuple):
    """The wireless network of the place."""

    ssid: str
    password: str
    """WPA2/WPA3 passphrase, 8 to 63 printable ASCII characters (IEEE 802.11i, annex H.4)."""


def user_data(
    node: str,
    code: str,
    gateway_url: str,
    *,
    time_server: str | None = None,
    ssh_keys: tuple[str, ...] = (),
    time_zone: str = "Asia/Tokyo",
    read_only: bool = False,
) -> str:
    """cloud-init's user-data for one node. It holds the code: a secret until the node has used it.

    `code` is the 16 characters on the box, with or without dashes; `gateway_url` the node listener's https://host:port;
    `time_server` the gateway's host unless given; `read_only` wants a partition labelled `satomori-state` on the card.
    ValueError says which argument can't be used, and why.
    """
    if not is_name(node):
        raise ValueError(f"{node!r} is no node name: 1 to 32 of a-z, 0-9 and '-'")
    code = normal_code(code)
    url = urlsplit(gateway_url)
    if url.scheme != "https" or not url.hostname or not re.fullmatch(r"[!-~]+", gateway_url) or url.path not in ("", "/"):
        raise ValueError(f"{gateway_url!r} is not https://host:port: nodes claim over TLS only")
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", time_zone):
        raise ValueError(f"{time_zone!r} is no time zone like Asia/Tokyo")
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{time_zone!r} is no time zone that this machine knows; write one like Asia/Tokyo") from None
    for key in ssh_keys:
        if not key.isprintable() or not re.fullmatch(r"(ssh|ecdsa|sk)-[!-~]+ [A-Za-z0-9+/=]+( .*)?", key):
            raise ValueError(f"{key[:40]!r} is no public SSH key in one line")
    host = _host(time_server or url.hostname)
    grouped = "-".join(code[at : at + 4] for at in range(0, len(code), 4))
    claim = f"SATOMORI_CLAIM={grouped}\nSATOMORI_GATEWAY={gateway_url.rstrip('/')}\n"
    copied = _COPIED | (_COPIED_READONLY if read_only else {})
    files = [_file("/etc/satomori/claim", claim, "0600")]
    files += [_file(path, _text(name).replace("@GATEWAY_HOST@", host), mode) for name, (path, mode) in copied.items()]
    mount = [f"LABEL={STATE_LABEL}", STATE, "ext4", "noatime,nofail,x-systemd.device-timeout=30s", "0", "2"]
    values: dict[str, Any] = {
        "NODE": node,
        "TIME_ZONE": time_zone,
        "SSH_KEYS": list(ssh_keys),
        "MOUNTS": [mount] if read_only else [],
        "FILES": files,
    }
    filled = _filled(_text("user-data"), values)
    return filled.replace("@UNITS@", ", ".join([*UNITS, READONLY_UNIT] if read_only else UNITS))


def network_config(wifi: Wifi | None) -> str:
    """cloud-init's network-config, version 2. ValueError for a name or a password that no network can have."""
    text = _text("network-config")
    if wifi is None:
        return text[: text.index("  wifis:")]
    if not 1 <= len(wifi.ssid.encode()) <= 32 or not wifi.ssid.isprintable():
        raise ValueError("the Wi-Fi's name has 1 to 32 bytes, all printable")
    if not re.fullmatch(r"[ -~]{8,63}", wifi.password):
        raise ValueError("the Wi-Fi's password has 8 to 63 printable ASCII characters")
    return _filled(text, {"SSID": wifi.ssid, "PASSWORD": wifi.password})


def meta_data(node: str, code: str) -> str:
    """cloud-init's meta-data: another code is another instance, so that the first boot is done again. The code is not in it."""
    return json.dumps({"instance-id": f"{node}-{normal_code(code)[:4].lower()}", "local-hostname": node}) + "\n"


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of `satomori-gateway node image`, and the node's name."""
    command.add_argument("name", metavar="NAME", help="the node's name")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="where to write; without: a folder of the node's name, here")
    command.add_argument("--wifi", metavar="SSID", help="the Wi-Fi of the place")
    command.add_argument("--wifi-password-file", type=Path, metavar="FILE", help="file that holds its password")
    command.add_argument("--ssh-key-file", type=Path, metavar="FILE", help="public keys that may log in, one a line")
    command.add_argument("--time-server", metavar="HOST", help="who tells the node the time; without: the gateway")
    command.add_argument("--time-zone", default="Asia/Tokyo", help="the node's time zone")
    command.add_argument(
        "--read-only", action="store_true", help="make the root read-only; the card needs a satomori-state partition"
    )
    command.add_argument("--force", action="store_true", help="write over what was made earlier, whose code is void then")


def write_image(arguments: argparse.Namespace, gateway_url: str, new_code: Callable[[], str]) -> Path:
    """Writes user-data, meta-data and network-config as `add_options` asks, and returns their folder.

    Files of an earlier card are written over with `force` only. `new_code` makes the node's one-time code. It is called only
    when everything else is known to be good, for it makes earlier codes void. ConfigError names what can't be used or written.
    """
    folder: Path = arguments.out or Path(arguments.name)
    made = _files(arguments, gateway_url, "0" * CODE_LENGTH)
    if not arguments.force and (there := [name for name in made if (folder / name).exists()]):
        raise ConfigError(
            f"--out: {folder} holds {' and '.join(there)} already. A new card makes the code of an earlier one void: say --force "
            "to write over it, or another folder"
        )
    _write(folder, {})
    _write(folder, _files(arguments, gateway_url, new_code()))
    return folder


def _files(arguments: argparse.Namespace, gateway_url: str, code: str) -> dict[str, str]:
    """The files' texts by name."""
    if (arguments.wifi is None) != (arguments.wifi_password_file is None):
        raise ConfigError("--wifi and --wifi-password-file go together")
    wifi = None
    if arguments.wifi is not None:
        wifi = Wifi(arguments.wifi, _lines(arguments.wifi_password_file, "--wifi-password-file", one=True)[0])
    keys = _lines(arguments.ssh_key_file, "--ssh-key-file") if arguments.ssh_key_file else []
    try:
        text = user_data(
            arguments.name,
            code,
            gateway_url,
            time_server=arguments.time_server,
            ssh_keys=tuple(keys),
            time_zone=arguments.time_zone,
            read_only=arguments.read_only,
        )
        return {"user-data": text, "meta-data": meta_data(arguments.name, code), "network-config": network_config(wifi)}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _write(folder: Path, files: dict[str, str]) -> None:
    """Each file with mode 0600, whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(folder / name, text.encode(), 0o600)
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} can't be written: {error.strerror}") from error


def _lines(path: Path, option: str, *, one: bool = False) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and (one or line[0] != "#")]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path} can't be read: {error}") from error
    if not lines or (one and len(lines) > 1):
        raise ConfigError(f"{option}: {path} should hold {'one line' if one else 'at least one line'}, and has {len(lines)}")
    return lines


def _folder() -> Traversable:
    return importlib.resources.files("firmware_configs") / "pi"


def _text(name: str) -> str:
    return _folder().joinpath(*name.split("/")).read_text(encoding="utf-8")


def _file(path: str, content: str, mode: str) -> dict[str, str]:
    return {"path": path, "content": content, "permissions": mode, "owner": "root:root"}


def _filled(template: str, values: dict[str, Any]) -> str:
    """The template with each @NAME@ as JSON; a list has one entry a line, and an empty one has no line at all."""

    def one(found: re.Match[str]) -> str:
        space, value = found[1], values[found[2]]
        if isinstance(value, list):
            return "".join(f"\n  - {json.dumps(entry, ensure_ascii=False)}" for entry in value)
        return space + json.dumps(value, ensure_ascii=False)

    for name in (name for name, value in values.items() if value == []):
        template = re.sub(rf"^.*@{name}@\n+", "", template, flags=re.MULTILINE)
    return re.sub(r"( ?)@(" + "|".join(values) + r")@", one, template)


def _host(name: str) -> str:
    """A host name or an address, as a line of timesyncd.conf may hold. ValueError for anything else."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*\.?", name):
            raise ValueError(f"{name!r} is no host name") from None
        return name
