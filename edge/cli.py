"""satomori-edge: run, check. Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration. The edge's files are opened here."""

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

from edge.agent import Agent
from edge.clock import SystemClock, boot_id, clock_state, machine_id
from edge.config import EdgeConfig, load
from edge.drivers import Driver, make_driver
from edge.errors import ConfigError, OutboxError
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Site
from edge.uplink import MqttLink, make_client
from edge.upload import Uploader

log = logging.getLogger(__name__)

CHECK_S = 15.0


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="satomori-edge", description="What runs on the Pi: reads devices, sends records.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "Run until stopped."), ("check", "Read every device once and say what is wrong.")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("config", type=Path, help="edge.toml")
        command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        config = load(arguments.config)
        if arguments.command == "run":
            return asyncio.run(_run(config))
        return asyncio.run(_check(config, as_json=arguments.json))
    except ConfigError as error:
        return _fail(str(error), 2, as_json=arguments.json)
    except (OutboxError, OSError) as error:
        return _fail(str(error), 1, as_json=arguments.json)


def _fail(text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": text}, ensure_ascii=False))
    print(f"satomori-edge: {text}", file=sys.stderr)
    return code


def _drivers(
    config: EdgeConfig, clock: SystemClock, media: MediaFolder, state: Path, epoch: str
) -> dict[str, tuple[str, Driver]]:
    drivers: dict[str, tuple[str, Driver]] = {}
    for device, device_config in config.device.items():
        folder = state / "devices" / device
        folder.mkdir(parents=True, exist_ok=True)
        kind = device_config.type.replace("_", "-")
        drivers[device] = (kind, make_driver(device, device_config, Site(clock, media, folder, epoch)))
    return drivers


async def _run(config: EdgeConfig) -> int:
    clock, boot, rng = SystemClock(), boot_id(), random.SystemRandom()
    state = config.node.state
    state.mkdir(parents=True, exist_ok=True)
    media = MediaFolder(state / "media")
    uploader = _uploader(config, media, clock, rng)
    outbox = Outbox(state / "outbox.db", machine=machine_id(), boot=boot, max_records=config.outbox.max_records)
    try:
        agent = Agent(
            config.node.name,
            _drivers(config, clock, media, state, outbox.epoch),
            outbox,
            clock,
            lambda words, listener: MqttLink(config.broker, words, listener, rng),
            boot=boot,
            clock_state=clock_state,
            rng=rng,
        )
        await _until_stopped([agent.run(), uploader.run()] if uploader else [agent.run()])
        return 0
    finally:
        outbox.close()


def _uploader(config: EdgeConfig, media: MediaFolder, clock: SystemClock, rng: random.Random) -> Uploader | None:
    if config.media is None:
        return None
    try:
        token = config.media.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"media.token_file: {config.media.token_file} can't be read: {error.strerror}") from error
    return Uploader(media, config.media.url, token, clock, rng)


async def _until_stopped(works: list[Coroutine[Any, Any, None]]) -> None:
    """Until SIGINT or SIGTERM, or until one of them ends; then ends all, each in its own time, and raises what one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]

    def stop() -> None:
        for task in tasks:
            if not task.cancelling():  # a second cancel would cut a farewell short
                task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _check(config: EdgeConfig, *, as_json: bool) -> int:
    """Reads one record of each device, side by side; what belongs to a running agent is left alone."""
    clock = SystemClock()
    make_client(config.broker, config.node.name)
    with tempfile.TemporaryDirectory(prefix="satomori-edge-check-") as state:
        media = MediaFolder(Path(state) / "media", reserve_bytes=0)
        drivers = _drivers(config, clock, media, Path(state), epoch="")
        said = await asyncio.gather(*(_first_record(driver) for _, driver in drivers.values()))
    faults = dict(zip(drivers, said, strict=True))
    if as_json:
        print(json.dumps({"ok": not any(said), "faults": {k: v for k, v in faults.items() if v}}, ensure_ascii=False))
    else:
        for device, fault in faults.items():
            print(f"{'NG' if fault else 'OK'}  device.{device}" + (f": {fault}" if fault else ""))
    return 1 if any(said) else 0


async def _first_record(driver: Driver) -> str | None:
    """What is wrong with the device, or None when it said something."""
    try:
        async with asyncio.timeout(CHECK_S), aclosing(driver.records()) as records:  # type: ignore[type-var]
            async for _ in records:
                return None
    except TimeoutError:
        return f"said nothing for {CHECK_S:g} s: is it switched on and wired to this port?"
    except OSError as error:
        return str(error) or type(error).__name__
    except Exception as error:
        log.exception("a driver failed")
        return f"its driver failed: {error!r}"
    return "ended without a word"
