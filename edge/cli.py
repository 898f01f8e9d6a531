"""satomori-edge: run, check, own, claim, renew, clock. The edge's files are opened, and its parts put together, here.

Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration.
"""

import argparse
import asyncio
import json
import logging
import random
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge import check, identity, screen, status
from edge.agent import VERSION, Agent, Driver
from edge.care import Build, Means, RemoteCare
from edge.clock import SystemClock, boot_id, machine_id
from edge.commands import Commands
from edge.config import CLOCK, EdgeConfig, MediaConfig, NodeConfig, load
from edge.diagnostics import RecentLog, bundle
from edge.drivers import make_driver
from edge.errors import ConfigError, OutboxError
from edge.expected import ExpectedTags
from edge.gateway_time import GatewayTime
from edge.hardware.systemd import notify, watchdog_s
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Site
from edge.self_test import SelfTest
from edge.timekeeper import Timekeeper, set_clock_to_floor
from edge.twin import Twin
from edge.uplink import MqttLink, make_client
from edge.upload import Uploader

log = logging.getLogger(__name__)

STATE = NodeConfig.model_fields["state"].default
TELL_S = 10.0
"""A service manager that could not be told that this agent is ready, and has no watchdog, is told again after this."""

COMMANDS = (
    ("run", "Run until stopped."),
    ("check", "Look at everything that this node needs, and say what to do about what is wrong."),
    ("own", "Run the devices of edge.toml again, and not those that the gateway asked for. While the agent is stopped."),
    ("claim", "Make this machine a node, by the code on its box."),
    ("renew", "Ask for the next certificate now; a running agent does so by itself."),
    ("clock", "Set the machine's clock forward to the last time known. For the start of the machine, as root."),
)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="satomori-edge", description="What runs on the Pi: reads devices, sends records.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")
        if name == "claim":
            command.add_argument(
                "code", metavar="CODE", help="As printed, or the text of the QR code: satomori:claim?u=...&c=...&n=..."
            )
            command.add_argument("--gateway", metavar="URL", help="https://host:port of the gateway; the QR code says it, too.")
            command.add_argument(
                "--state", type=Path, default=STATE, metavar="DIR", help=f"The state folder; {STATE} when absent."
            )
            command.add_argument(
                "--self-test-pin",
                type=int,
                choices=range(28),
                metavar="PIN",
                help="BCM number of the self-test's button, if any.",
            )
        else:
            command.add_argument("config", type=Path, help="edge.toml")
        if name == "check":
            command.add_argument("--lang", choices=screen.LANGUAGES, help="Language of the screen; by LANG when absent.")
    arguments = parser.parse_args(argv)
    # `check` says on its screen what is wrong, and the screen is not to scroll away.
    level = logging.ERROR if arguments.command == "check" else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return _COMMANDS[arguments.command](arguments)
    except ConfigError as error:
        return _fail(str(error), 2, as_json=arguments.json)
    except (OutboxError, OSError) as error:
        return _fail(str(error), 1, as_json=arguments.json)


def _fail(text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": text}, ensure_ascii=False))
    print(f"satomori-edge: {text}", file=sys.stderr)
    return code


def _said(text: str, as_json: bool, **facts: str) -> int:
    print(json.dumps({"ok": True, **facts}, ensure_ascii=False) if as_json else text)
    return 0


# The commands


def _claim(arguments: argparse.Namespace) -> int:
    code, url = identity.invitation(arguments.code)
    url = arguments.gateway or url
    if url is None:
        raise ConfigError("--gateway: say https://host:port of the gateway, or give the whole text of the QR code as CODE")
    node = identity.claim(code, url, arguments.state, arguments.self_test_pin)
    path = arguments.state / "edge.toml"
    try:
        runs = status.ask(arguments.state) is not None
    except OSError:  # it runs, and does not answer
        runs = True
    restart = " The agent that runs is still the former node: restart it (sudo systemctl restart satomori-edge)." if runs else ""
    return _said(
        f"This is node {node} now.{restart} Next: satomori-edge check {path}", arguments.json, node=node, config=str(path)
    )


def _renew(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    if config.remote is None:
        raise ConfigError(f"{arguments.config}: remote: is absent, so there is no gateway to ask; claim this node")
    state = config.node.state
    made = identity.renew(state, config.remote.url, config.node.name, clock=Timekeeper(state, boot_id()).machine_state())
    until = datetime.fromtimestamp(made.ends_s, UTC).isoformat()
    return _said(f"renewed; good until {until}. A running agent shows it at its next connection.", arguments.json, until=until)


def _own(arguments: argparse.Namespace) -> int:
    state = load(arguments.config).node.state
    if status.ask(state) is not None:
        raise OSError("the agent runs, with this configuration in its memory. Stop it first: sudo systemctl stop satomori-edge")
    former = Twin(state / "twin.json").take_back()
    text = (
        f"Revision {former.revision} from the gateway runs no more; {arguments.config} does from the next start on, until the "
        "gateway asks for a newer one."
        if former
        else f"{arguments.config} runs already: nothing from the gateway takes its place."
    )
    return _said(text, arguments.json, done=text)


def _clock(arguments: argparse.Namespace) -> int:
    done = set_clock_to_floor(load(arguments.config).node.state)
    return _said(done, arguments.json, done=done)


def _check(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    findings = asyncio.run(check.findings(config))
    language = arguments.lang or screen.language()
    print(screen.as_json(findings, language) if arguments.json else screen.screen(findings, language))
    if any(one.setting for one in findings):
        return 2
    return 1 if any(one.is_bad for one in findings) else 0


def _run(arguments: argparse.Namespace) -> int:
    config, recent = load(arguments.config), RecentLog()
    logging.getLogger().addHandler(recent)
    try:
        return asyncio.run(_live(config, recent))
    finally:
        logging.getLogger().removeHandler(recent)


# The agent, put together


async def _live(base: EdgeConfig, recent: RecentLog) -> int:
    boot, rng, state = boot_id(), random.SystemRandom(), base.node.state
    # Before anything is written: whoever tried it as root leaves no file that the agent's own user then can't write.
    make_client(base.broker, base.node.name)
    token = _token(base.media)
    state.mkdir(parents=True, exist_ok=True)
    guide = GatewayTime(SystemClock(), base.remote.url, state / identity.FOLDER / "ca.pem", rng) if base.remote else None
    clock = Timekeeper(state, boot, guide, guide.disciplined) if guide else Timekeeper(state, boot)
    media = MediaFolder(state / "media")
    uploader = _uploader(base, token, media, clock, rng)
    outbox = Outbox(
        state / "outbox.db",
        machine=machine_id(),
        boot=boot,
        max_records=base.outbox.max_records,
        max_bytes=base.outbox.max_mib * 2**20,
    )
    try:
        expected = ExpectedTags(state / "expected.json")

        def build(config: EdgeConfig, device: str) -> tuple[str, Driver]:
            folder = state / "devices" / device
            folder.mkdir(parents=True, exist_ok=True)
            site = Site(clock, media, folder, outbox.epoch, lambda: outbox.waiting, clock.clock_state, expected.at)
            settings = config.device[device]
            try:
                return settings.type.replace("_", "-"), make_driver(device, settings, site)
            except (ValueError, LookupError) as error:
                raise ConfigError(f"device.{device}: {error}") from error

        twin = Twin(state / "twin.json")
        config, drivers = _first(base, twin, build)
        if (running := twin.applied) is not None:
            log.info("configuration revision %d from the gateway runs; the [device] sections of edge.toml do not. "
                     "To come back to them: satomori-edge own edge.toml", running.revision)  # fmt: skip
        agent = Agent(
            base.node.name,
            drivers | {CLOCK: (CLOCK, clock)},
            outbox,
            clock,
            lambda words, listener: MqttLink(config.broker, words, listener, rng, clock.machine_state),
            boot=boot,
            clock_state=clock.clock_state,
            rng=rng,
        )

        def tell() -> dict[str, Any]:
            return {
                "version": VERSION, "node": base.node.name, "up": agent.up, "answered_s": agent.answered_s(),
                "clock": clock.clock_state(), "now_us": clock.now().utc_us, "waiting": outbox.waiting,
                "devices": sorted(agent.drivers), "failing": agent.failing,
                "revision": care.applied.revision if care.applied else 0,
            }  # fmt: skip

        def shelve() -> str:
            if uploader is None:
                raise OSError("this node has no [media], so there is nowhere to send it to")
            return media.keep(bundle(care.config, outbox, tell(), recent), "application/gzip")

        def keys() -> list[bytes]:
            return identity.keys_in(base.remote.keys_file) if base.remote else []

        means = Means(clock, clock.clock_state, keys, build, shelve)
        care = RemoteCare(agent, means, base, config, twin, Commands(state / "commands.json"), expected)
        agent.care = care
        works = [agent.run(), status.tell(state, tell), _alive()]
        if base.self_test is not None:
            button = SelfTest(base.self_test, agent, clock, state, clock.clock_state, lambda: outbox.waiting)
            works.append(button.run())
        if uploader is not None:
            works.append(uploader.run())
        if base.remote is not None:

            def renewed() -> None:
                agent.use_broker(care.config.broker)

            renewal = identity.Renewal(state, base.remote.url, base.node.name, clock, clock.machine_state, rng, renewed)
            works.append(renewal.run())
        if guide is not None:
            works.append(guide.run())
        await _until_stopped(works)
        return 0
    finally:
        outbox.close()


def _first(base: EdgeConfig, twin: Twin, build: Build) -> tuple[EdgeConfig, dict[str, tuple[str, Driver]]]:
    """What to begin with. What was asked from afar and can't even be made gives way to what was before it."""
    config = twin.start(base)
    try:
        return config, {device: build(config, device) for device in config.device}
    except ConfigError as error:
        if twin.memory.running is None:
            raise
        if twin.memory.trial:
            twin.roll_back(str(error))
        else:
            twin.give_up(str(error))
        return _first(base, twin, build)


def _token(media: MediaConfig | None) -> str:
    """Of the one that has it: without [media] there is none."""
    if media is None:
        return ""
    try:
        return media.token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"media.token_file: {media.token_file} can't be read: {error.strerror}") from error


def _uploader(config: EdgeConfig, token: str, media: MediaFolder, clock: Timekeeper, rng: random.Random) -> Uploader | None:
    if config.media is None:
        return None
    url, ca_file = config.media.url, config.media.ca_file
    return Uploader(media, url, token, clock, rng, ca_file=ca_file, clock_state=clock.machine_state)


async def _alive() -> None:
    """Tells the service manager that the loop turns. It stops telling when the loop hangs, and is then restarted."""
    every_s, ready, down = watchdog_s(), False, False
    while not ready or every_s is not None:
        try:
            notify("WATCHDOG=1" if ready else "READY=1")
        except OSError as error:  # it is starting anew itself, perhaps
            if not down:
                log.error("the service manager can't be told that all is well: %s; trying again", error)
            down = True
        else:
            ready, down = True, False
        await asyncio.sleep(TELL_S if every_s is None else every_s / 2)
    await asyncio.Event().wait()


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


_COMMANDS = {"run": _run, "check": _check, "claim": _claim, "renew": _renew, "clock": _clock, "own": _own}
