"""firmware_configs/gateway/nats-cluster.conf in three real servers: one of them may be killed, and nobody else joins them."""

import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.contract.topics import up_filters
from gateway.nodes.authority import ACCOUNT as GATEWAY
from simulators.ports import free_port
from tests.firmware.test_brokers import ACK, BROKER_FILES, FOLDER, HERE, LIVE, Box, Session, Town, adapted
from tests.services import listening, require_binary, running

HOSTS = [f"nats-{number}.example" for number in (1, 2, 3)]


def settings(file: str) -> list[str]:
    lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


def test_each_of_three_is_set_as_the_only_one_is() -> None:
    one, three = settings("nats.conf"), settings("nats-cluster.conf")
    assert [line for line in one if line not in three] == ['server_name: "satomori"']
    more = [line for line in three if line not in one]
    assert "  stream_replicas: 3" in more


class Three(NamedTuple):
    """At work; each by its place."""

    town: Town
    ports: list[int]
    routes: list[int]
    processes: list[subprocess.Popen[bytes]]

    def box(self, at: int) -> Box:
        return Box([], self.town, self.ports[at], self.ports[at])


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    require_binary("openssl")
    town, ports, routes = Town(tmp_path / "authority"), [free_port() for _ in HOSTS], [free_port() for _ in HOSTS]
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^(openssl req .*?^done)$", readme, re.MULTILINE | re.DOTALL)
    # All three are this machine.
    said = said.replace(" ".join(HOSTS), "localhost")
    subprocess.run(["sh", "-euc", said], cwd=town.folder, check=True, capture_output=True, timeout=20)
    for end in (".pem", "-key.pem"):
        (town.folder / f"localhost{end}").rename(town.folder / f"cluster{end}")
    program = Path(sys.executable).parent / "nats-server"
    with ExitStack() as stack:
        files = []
        for at, (port, route) in enumerate(zip(ports, routes, strict=True)):
            changes = {
                'server_name: "satomori-1"': f'server_name: "satomori-{at + 1}"',
                'listen: "127.0.0.1:4222"': f'listen: "127.0.0.1:{free_port()}"',
                'store_dir: "/var/lib/nats"': f'store_dir: "{tmp_path / f"data-{at}"}"',
                'host: "0.0.0.0"': 'host: "127.0.0.1"',
                "port: 8883": f"port: {port}",
                'ack_wait: "30s"': 'ack_wait: "2s"',
                'listen: "0.0.0.0:6222"': f'listen: "127.0.0.1:{route}"',
                **{
                    f'"nats-route://{host}:6222"': f'"nats-route://localhost:{own}"'
                    for host, own in zip(HOSTS, routes, strict=True)
                },
            }
            file = town.folder / f"nats-{at}.conf"  # what it includes lies beside it
            file.write_text(adapted("nats-cluster.conf", changes).replace(BROKER_FILES, str(town.folder)), encoding="utf-8")
            looked = subprocess.run([program, "-t", "-c", file], check=False, capture_output=True, text=True, timeout=20)
            assert looked.returncode == 0, looked.stderr
            files.append(file)
        processes = [stack.enter_context(running([program, "-c", file], lambda: True)) for file in files]
        made = Three(town, ports, routes, processes)
        # Until most of them know each other, none takes anybody.
        for at in range(3):
            until_it_takes_the_gateway(made, at)
        yield made


def until_it_takes_the_gateway(three: Three, at: int) -> None:
    for _ in range(100):
        if listening(three.ports[at]):
            with Session(three.box(at), GATEWAY, f"hello-{at}") as session:
                if session.welcome and session.hear(up_filters()[0]):
                    return
        with pytest.raises(subprocess.TimeoutExpired):
            three.processes[at].wait(0.2)  # the pause between two looks
    pytest.fail(f"server {at + 1} of three takes nobody")


def test_what_waits_for_the_gateway_outlives_any_one_of_them(three: Three) -> None:
    with Session(three.box(0), GATEWAY, "satomori-gateway") as gateway:
        assert gateway.hear(up_filters()[0])
    with Session(three.box(1), HERE) as node:
        assert node.hear(ACK)
        node.say(LIVE, b"while the gateway is away")
    three.processes[0].kill()
    three.processes[0].wait()
    until_it_takes_the_gateway(three, 2)
    with Session(three.box(2), GATEWAY, "satomori-gateway") as gateway:
        assert gateway.next() == (LIVE, b"while the gateway is away")
        with Session(three.box(1), HERE) as node:
            gateway.say(ACK, b"heard")
            assert node.next() == (ACK, b"heard")


def joins(three: Three, who: str | None) -> bool:
    """Whether a server listens to who comes with this certificate where the three speak with each other."""
    folder = three.town.folder
    context = ssl.create_default_context(cafile=folder / "cluster-ca.pem")
    if who is not None:
        context.load_cert_chain(folder / f"{who}.pem", folder / f"{who}-key.pem")
    try:
        with (
            socket.create_connection(("localhost", three.routes[0]), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return tls.recv(5) == b"INFO "
    except (ssl.SSLError, ConnectionError):
        return False


def test_whom_the_town_has_certified_is_not_one_of_the_three(three: Three) -> None:
    assert joins(three, "cluster")
    assert [who for who in (HERE, GATEWAY, "broker", None) if joins(three, who)] == []
