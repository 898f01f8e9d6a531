"""`satomori-gateway run`: a gateway, or some of its roles, until it is asked to stop."""

import argparse
import asyncio
import json
import signal
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from gateway import logs, metrics
from gateway.config import GatewayConfig
from gateway.roles import ROLES, Role
from gateway.roles import running as running_roles
from gateway.running import Running
from gateway.terminal import Commands, Told, leaf


def add_commands(commands: Commands) -> None:
    """Adds `run` to the program."""
    run = leaf(commands, "run", "Run until stopped.", _run)
    run.add_argument("--role", action="append", choices=[*ROLES, "all"],
                     help="Of several processes over one PostgreSQL: what this one does; may be given again.")  # fmt: skip
    run.add_argument("--metrics", metavar="[HOST:]PORT", help="Where this machine reads this process's metrics, without a token.")


def _run(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    """It says itself where it is, as it stays; when it has ended there is nothing to tell."""
    if roles := _roles(config, arguments.role):
        logs.set_up(config.log, role=",".join(roles))
    read_at = metrics.address_of(arguments.metrics) if arguments.metrics else None
    return Told(asyncio.run(_until_asked(config, roles, read_at, as_json=arguments.json)), {}, [])


def _roles(config: GatewayConfig, asked: list[str] | None) -> list[Role]:
    """Empty: the whole gateway in one process, over a database of its own."""
    if not config.state.is_shared and not {*(asked or ())} - {"all"}:
        return []
    return [role for role in ROLES if asked is None or role in asked or "all" in asked]


def _whole(config: GatewayConfig) -> AbstractAsyncContextManager[Running]:
    from gateway.service import running  # brings FastAPI, which most roles have no use for

    return running(config)


_PLACES = {"url": "the page is", "metrics": "its metrics are"}


async def _until_asked(config: GatewayConfig, roles: list[Role], read_at: metrics.Address | None, *, as_json: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_roles(config, roles) if roles else _whole(config))
        where = {"url": f"http://{config.api.host}:{gateway.port}/"} if gateway.port else {}
        if read_at is not None:
            where["metrics"] = stack.enter_context(metrics.served(gateway.telemetry.registry, read_at)).url
        said = [f"{_PLACES[what]} at {url}" for what, url in where.items()] or [f"works as {', '.join(roles)}"]
        lines = [json.dumps({"ok": True, **where})] if as_json else [f"satomori-gateway: {line}" for line in said]
        print("\n".join(lines), flush=True)
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(gateway.failed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return 1 if gateway.failed.is_set() else 0
