"""The drawing in README.md of what a real run of the demo told its terminal: `python -m simulators.pictures` writes demo.svg.

Nothing is drawn by hand and nothing is left out but the token of the town. The photographs of pages are the walks' (tests/walks).
"""

import argparse
import html
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from simulators.town import beside_python

COLUMNS = 100
MOST_BYTES = 300_000
_FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""A picture must load nothing from elsewhere; the reader's own monospace font will do."""

_TEXT_LENGTH = re.compile(r'textLength="[0-9.]+"( [^>]*)>([^<]*)<')
_CELL = 12.2  # px, of rich's template
"""Rich stretches a text to as many cells as it has characters; Japanese ones take two."""


class PictureError(RuntimeError):
    """A picture could not be taken; the text says why."""


def take(folder: Path, for_s: int) -> None:
    """Runs the demo for so long and writes the drawing. PictureError when that is not possible."""
    argv = [str(beside_python("satomori-sim")), "demo", "--for", str(for_s)]
    colours = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, **colours}, check=False)
    story = done.stdout.splitlines()
    if done.returncode != 0:
        raise PictureError(f"the demo ended with {done.returncode}; run it by itself to see why")
    folder.mkdir(parents=True, exist_ok=True)
    drawing = folder / "demo.svg"
    drawing.write_text(_svg(story, for_s), encoding="utf-8")
    if (size := drawing.stat().st_size) > MOST_BYTES:
        raise PictureError(f"{drawing} has {size} bytes; a README should not load more than {MOST_BYTES}")


def _svg(story: list[str], for_s: int) -> str:
    """What stood on the terminal, as a picture of text; the token of the town, which is gone, is left out."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(f'[bold green]$[/bold green] make demo ARGS="--for {for_s}"', highlight=False)
    for line in story:
        text = Text.from_ansi(line)
        if found := re.search(r"(?<=#token=)\w+", text.plain):
            text = text[: found.start()] + Text("…")
        console.print(text)
    svg = _FONT_FACES.sub("", console.export_svg(title="satomori", unique_id="demo"))
    return _TEXT_LENGTH.sub(lambda m: f'textLength="{cell_len(html.unescape(m[2])) * _CELL:g}"{m[1]}>{m[2]}<', svg)


def main(argv: list[str] | None = None) -> int:
    """0 when the drawing is there, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="python -m simulators.pictures", description="Draws README.md's picture of a real demo."
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="Folder to write to (docs).")
    parser.add_argument("--for", dest="for_s", type=int, default=60, help="How many seconds the demo runs (60).")
    arguments = parser.parse_args(argv)
    try:
        take(arguments.out, arguments.for_s)
    except (PictureError, OSError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
