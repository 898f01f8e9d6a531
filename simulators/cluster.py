"""Three nats-servers as one JetStream cluster on loopback, and the balancer for TCP in front of them: nothing else.

What is acknowledged is on two of the three at least, so any one of them may be killed. Who comes by the balancer gets to the
first of them that takes connections; one that is killed drops those it had, and they come anew.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from simulators.broker import Broker, nats
from simulators.ports import free_port

NODES = 3


class Cluster(NamedTuple):
    """A cluster at work."""

    url: str
    """Of the balancer."""
    nodes: list[Broker]
    """In the order in which the balancer tries them."""


@contextmanager
def cluster(folder: Path, *, ack_wait_s: int = 30) -> Iterator[Cluster]:
    """A new one while the block runs. BrokerError when it does not come up."""
    routes = [free_port() for _ in range(NODES)]
    nodes = [_node(folder / f"node-{at}", at, routes, ack_wait_s) for at in range(NODES)]
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
        with ThreadPoolExecutor(NODES) as pool:
            # At once: until most of them are there, none takes anybody.
            for started in [pool.submit(node.start, 60) for node in nodes]:
                started.result()
        port = stack.enter_context(_balanced([node.port for node in nodes]))
        yield Cluster(f"mqtt://127.0.0.1:{port}", nodes)


def _node(folder: Path, at: int, routes: list[int], ack_wait_s: int) -> Broker:
    node = nats(folder, ack_wait_s=ack_wait_s)
    config = folder / "nats.conf"
    others = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
    config.write_text(
        config.read_text(encoding="utf-8")
        .replace('server_name: "satomori-sim"', f'server_name: "satomori-sim-{at}"')
        .replace("  max_ack_pending:", f"  stream_replicas: {NODES}\n  consumer_replicas: {NODES}\n  max_ack_pending:")
        + f'cluster {{ name: "satomori-sim", listen: "127.0.0.1:{routes[at]}", routes: [{others}] }}\n',
        encoding="utf-8",
    )
    return node


@contextmanager
def _balanced(ports: list[int]) -> Iterator[int]:
    """A port that leads to the first of these that takes connections."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="balancer", daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(_serve(ports), loop).result(10)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        asyncio.run_coroutine_threadsafe(_end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _serve(ports: list[int]) -> asyncio.Server:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in ports:
            with suppress(OSError):
                node_reader, node_writer = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            writer.transport.abort()
            return
        pumps = [asyncio.create_task(_pump(reader, node_writer)), asyncio.create_task(_pump(node_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()
            node_writer.transport.abort()

    return await asyncio.start_server(relay, "127.0.0.1", 0)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


async def _end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
