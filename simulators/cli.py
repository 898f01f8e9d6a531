"""satomori-sim: demo, fleet, scenario. Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration."""

import argparse
import difflib
import fcntl
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from simulators import demo, fleet
from simulators.broker import BrokerError, BrokerMissingError

LOCK = "demo.lock"
"""In a folder that is kept: whoever runs there holds it."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="satomori-sim", description="The town on a desk: simulated hardware, real programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("demo", help="Run the town and tell what happens.")
    command.add_argument(
        "--for", dest="for_s", type=_seconds, metavar="SECONDS", help="Stop by itself; otherwise Ctrl-C stops it."
    )
    command.add_argument("--json", action="store_true", help="One JSON object on stdout at the end; the story goes to stderr.")
    command.add_argument("--broker", choices=("nats", "mosquitto"), default="nats", help="Which MQTT broker (default: nats).")
    command.add_argument("--seed", type=int, default=1, help="Another seed is another town (default: 1).")
    command.add_argument("--keep", type=Path, metavar="FOLDER", help="Keep databases and logs in this new folder.")
    command.add_argument(
        "--quiet-people", action="store_true", help="Nobody answers by themselves: only who sits at the desk does."
    )
    command.add_argument("--no-browser", action="store_true", help="Don't open the map in a browser.")
    command = commands.add_parser("scenario", help="Tell a scenario's folder on virtual time and compare with what it expects.")
    command.add_argument("folder", type=Path, help="Folder with scenario.toml and expected.jsonl")
    command.add_argument("--json", action="store_true", help="Only the transcript, one JSON object a line.")
    fleet.add_arguments(commands.add_parser("fleet", help="Play many nodes at a rate against a broker, and count their acks."))
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "fleet":
            return fleet.run_command(arguments)
        if arguments.command == "demo":
            return _demo(arguments)
        return _scenario(arguments.folder, as_json=arguments.json)
    except BrokerMissingError as error:
        print(f"satomori-sim: {error}", file=sys.stderr)
        return 2
    except (BrokerError, RuntimeError, OSError) as error:
        print(f"satomori-sim: {error}", file=sys.stderr)
        return 1


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 86400 seconds")
    return seconds


def _demo(arguments: argparse.Namespace) -> int:
    with ExitStack() as stack:
        if arguments.keep is not None and (refused := _taken(arguments.keep, stack)) is not None:
            print(f"satomori-sim: {refused}", file=sys.stderr)
            return 2
        keep = arguments.keep.resolve() if arguments.keep else None
        return demo.run(
            arguments.for_s, as_json=arguments.json, broker_name=arguments.broker, seed=arguments.seed, folder=keep,
            quiet_people=arguments.quiet_people, opens_browser=not (arguments.no_browser or arguments.json),
        )  # fmt: skip


def _taken(folder: Path, stack: ExitStack) -> str | None:
    """Takes a new folder for this demo alone, as long as `stack` is open. Why it can't be had, else None."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / LOCK).exists() or not any(folder.iterdir()):  # else it is no demo's, and stays as it is
        lock = stack.enter_context((folder / LOCK).open("a", encoding="ascii"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"another demo runs in {folder}; stop that first, or name a new folder"
    if any(path.name != LOCK for path in folder.iterdir()):
        return f"{folder} is not empty; name a new folder"
    return None


def _scenario(folder: Path, *, as_json: bool) -> int:
    """Prints the transcript; 1 and a comparison when it is not what the folder expects."""
    from simulators.scenario import ScenarioError, as_expected, expected, told

    if not (folder / "scenario.toml").is_file():
        print(f"satomori-sim: {folder} holds no scenario.toml", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="satomori-") as home:
        try:
            transcript = told(folder, Path(home))
        except ScenarioError as error:
            print(f"satomori-sim: {folder / 'scenario.toml'}: {error}", file=sys.stderr)
            return 2
        lines = [json.dumps(line, ensure_ascii=False) for line in transcript]
    print("\n".join(lines))
    if as_json:
        return 0
    expects = expected(folder)
    if len(transcript) == len(expects) and all(map(as_expected, transcript, expects)):
        print(f"as expected: {folder.name}", file=sys.stderr)
        return 0
    wanted = [json.dumps(line, ensure_ascii=False) for line in expects]
    print("\n".join(difflib.unified_diff(wanted, lines, "expected.jsonl", "what happened", lineterm="")), file=sys.stderr)
    return 1
