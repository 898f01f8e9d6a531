"""The pictures in README.md, taken of a real run of the demo: `python -m simulators.pictures`.

demo.png is the gateway's page in Chromium while the demo runs, demo.svg what the demo told its terminal. Nothing is drawn by hand
and nothing is left out but the page's token. Needs the `dev` extra (Playwright) and a Chromium on this machine.
"""

import argparse
import html
import io
import os
import re
import shutil
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

RINGS = 3
"""The page is taken when the phone rang so often: a trap, a camera and another trap, on the mountain."""


class PictureError(RuntimeError):
    """A picture could not be taken; the text says why."""


def take(folder: Path, for_s: int) -> None:
    """Runs the demo for so long and writes both pictures. PictureError when that is not possible."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise PictureError("there is no Chromium in PATH; get it with: apt-get install chromium fonts-noto-cjk")
    argv = [str(beside_python("satomori-sim")), "demo", "--for", str(for_s)]
    colours = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1"}
    story: list[str] = []
    url, rang, shot = "", 0, b""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, **colours}) as demo:
        assert demo.stdout is not None
        try:
            for line in demo.stdout:
                story.append(line.rstrip("\n"))
                plain = Text.from_ansi(line).plain
                if found := re.search(r"http\S+#token=\w+", plain):
                    url = found[0].replace("/map#", "/#")
                rang += "📱" in plain
                if rang == RINGS and not shot:
                    shot = _shoot(chromium, url)
        finally:
            demo.terminate()
    if demo.returncode != 0 or not shot:
        raise PictureError(f"the demo ended with {demo.returncode} after {rang} messages; run it by itself to see why")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.png").write_bytes(shot)
    (folder / "demo.svg").write_text(_svg(story, for_s), encoding="utf-8")
    for name in ("demo.png", "demo.svg"):
        if (size := (folder / name).stat().st_size) > MOST_BYTES:
            raise PictureError(f"{folder / name} has {size} bytes; a README should not load more than {MOST_BYTES}")


def _shoot(chromium: str, url: str) -> bytes:
    """The page as the town office sees it, with one alert that somebody has answered: a PNG."""
    from playwright.sync_api import sync_playwright  # of the `dev` extra

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000}, locale="ja-JP")
        page.goto(url)
        answers = page.locator("#alerts button")
        answers.last.click()
        page.locator("#alerts li.acknowledged").first.wait_for()
        page.mouse.move(0, 0)
        shot = page.screenshot()
        browser.close()
    return shot


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
    """0 when both pictures are there, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="python -m simulators.pictures", description="Takes README.md's pictures of a real demo."
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
