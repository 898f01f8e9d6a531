"""satomori-edge: run, check. Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration. The edge's files are opened here."""

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
from contextlib import aclosing
from pathlib import Path

from edge.agent import Agent
from edge.clock import SystemClock, boot_id, clock_state, machine_id
from edge.config import EdgeConfig, load
from edge.drivers import Driver, make_driver
from edge.errors import ConfigError, OutboxError
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Site
from edge.uplink import MqttLink
from edge.upload import Uploader

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
    except BaseExceptionGroup as group:
        return _fail("; ".join(map(str, group.exceptions)), 1, as_json=arguments.json)


def _fail(text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": text}, ensure_ascii=False))
    print(f"satomori-edge: {text}", file=sys.stderr)
    return code


def _drivers(config: EdgeConfig, clock: SystemClock, media: MediaFolder) -> dict[str, tuple[str, Driver]]:
    drivers: dict[str, tuple[str, Driver]] = {}
    for device, device_config in config.device.items():
        folder = config.node.state / "devices" / device
        folder.mkdir(parents=True, exist_ok=True)
        kind = device_config.type.replace("_", "-")
        drivers[device] = (kind, make_driver(device, device_config, Site(clock, media, folder)))
    return drivers


async def _run(config: EdgeConfig) -> int:
    clock, boot, rng = SystemClock(), boot_id(), random.SystemRandom()
    state = config.node.state
    state.mkdir(parents=True, exist_ok=True)
    media = MediaFolder(state / "media")
    outbox = Outbox(state / "outbox.db", machine=machine_id(), boot=boot, max_records=config.outbox.max_records)
    try:
        agent = Agent(
            config.node.name,
            _drivers(config, clock, media),
            outbox,
            clock,
            lambda words, listener: MqttLink(config.broker, words, listener, rng),
            boot=boot,
            clock_state=clock_state,
            rng=rng,
        )
        loop = asyncio.get_running_loop()
        work = [asyncio.ensure_future(agent.run())]
        if config.media is not None:
            try:
                token = config.media.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigError(f"media.token_file: {config.media.token_file} can't be read: {error.strerror}") from error
            work.append(asyncio.ensure_future(Uploader(media, config.media.url, token, clock, rng).run()))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: [task.cancel() for task in work])
        try:
            await asyncio.gather(*work)
        except asyncio.CancelledError:
            await asyncio.gather(*work, return_exceptions=True)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return 0
    finally:
        outbox.close()


async def _check(config: EdgeConfig, *, as_json: bool) -> int:
    """Reads one record of each device, side by side; the outbox of a running agent is left alone."""
    clock = SystemClock()
    media = MediaFolder(config.node.state / "media")
    faults = {device: await _first_record(driver) for device, (_, driver) in _drivers(config, clock, media).items()}
    if as_json:
        print(json.dumps({"ok": not any(faults.values()), "faults": {k: v for k, v in faults.items() if v}}, ensure_ascii=False))
    else:
        for device, fault in faults.items():
            print(f"{'NG' if fault else 'OK'}  device.{device}" + (f": {fault}" if fault else ""))
    return 1 if any(faults.values()) else 0


async def _first_record(driver: Driver) -> str | None:
    """What is wrong with the device, or None when it said something."""
    try:
        async with asyncio.timeout(CHECK_S), aclosing(driver.records()) as records:  # type: ignore[type-var]
            async for _ in records:
                return None
    except TimeoutError:
        return f"said nothing for {CHECK_S:g} s: is it switched on and wired to this port?"
    except OSError as error:
        return str(error)
    return "ended without a word"
