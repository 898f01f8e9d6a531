"""What a benchmark says: figures beside their peers, as a table for people and as JSON for programs."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Figure(NamedTuple):
    """One row. `values` are the repetitions, `peer_values` those of the peer, taken in turns with them."""

    name: str
    unit: str
    values: Sequence[float]
    peer: str | None = None
    peer_values: Sequence[float] = ()
    target: float | None = None
    """The least ratio that is good enough."""
    less_is_better: bool = False
    lacking: str | None = None
    """Why it was not measured; then there are no values."""

    @property
    def value(self) -> float | None:
        """The median. None when it was not measured."""
        return median(self.values) if self.values else None

    @property
    def ratio(self) -> float | None:
        """Of the medians; above 1 we are better. None without a peer."""
        ours = self.value
        if not self.peer_values or ours is None:
            return None
        peer = median(self.peer_values)
        return peer / ours if self.less_is_better else ours / peer

    @property
    def missed(self) -> bool:
        """Whether there is a target and it was not reached. What was not measured missed nothing: it says why by itself."""
        return self.target is not None and self.lacking is None and (self.ratio or 0) < self.target

    def row(self) -> dict[str, object]:
        """As it stands in the JSON; `spread` is smallest and largest of the repetitions."""
        value, peer = self.value, bool(self.peer_values)
        return {
            "name": self.name,
            "value": None if value is None else round(value, 3),
            "unit": self.unit,
            "spread": [round(min(self.values), 3), round(max(self.values), 3)] if self.values else None,
            "peer": self.peer,
            "peer_value": round(median(self.peer_values), 3) if peer else None,
            "peer_spread": [round(min(self.peer_values), 3), round(max(self.peer_values), 3)] if peer else None,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "target": self.target,
            "met": None if self.target is None or self.lacking else not self.missed,
            "lacking": self.lacking,
        }


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """A list, one object a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([figure.row() for figure in figures], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def print_table(figures: Sequence[Figure], caption: str, console: Console) -> None:
    """Medians, with smallest and largest beneath. Stands in 80 columns."""
    table = Table(title="satomori bench", caption=caption, caption_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("figure")
    table.add_column("satomori", justify="right", no_wrap=True)
    table.add_column("peer", justify="right")
    table.add_column("ratio", justify="right", no_wrap=True)
    for figure in figures:
        if figure.lacking:
            table.add_row(figure.name, "[yellow]not measured", escape(figure.lacking), _target(figure))
            continue
        colour = "" if figure.target is None else "[red]" if figure.missed else "[green]"
        ratio = "" if figure.ratio is None else f"{colour}{figure.ratio:.2f}"
        peer = f"{_spread(figure.peer_values, figure.unit)}\n[dim]{figure.peer or ''}" if figure.peer_values else ""
        table.add_row(figure.name, _spread(figure.values, figure.unit), peer, f"{ratio}\n{_target(figure)}".strip())
    console.print(table)


def write_page(figures: Sequence[Figure], path: Path, where: str, on: date) -> None:
    """Renews the rows of a page's table that are about these figures, and adds what it has not; only those with a target.

    Columns: work, target, last measured, machine, date. ValueError where the page has no such table.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        first = lines.index("|---|---|---|---|---|") + 1
    except ValueError:
        raise ValueError(f"{path} has no table of five columns to write figures into") from None
    end = next((at for at in range(first, len(lines)) if not lines[at].startswith("|")), len(lines))
    rows = {line.split("|")[1].strip(): line for line in lines[first:end]}
    for figure in figures:
        if figure.target is not None and figure.lacking is None:
            rows[figure.name] = _page_row(figure, where, on)
    path.write_text("\n".join([*lines[:first], *rows.values(), *lines[end:]]) + "\n", encoding="utf-8")


def _page_row(figure: Figure, where: str, on: date) -> str:
    ours, peer = (f"{_short(median(values))} {figure.unit}" for values in (figure.values, figure.peer_values))
    said = f"{figure.ratio:.2f}{', missed' if figure.missed else ''}: {ours}; {figure.peer}: {peer}"
    return f"| {figure.name} | {figure.target:.3g} | {said} | {where} | {on} |"


def _target(figure: Figure) -> str:
    """The least ratio that is good enough, and whether it was reached."""
    if figure.target is None:
        return ""
    return f">= {figure.target:.3g}" + ("" if figure.lacking else "\nmissed" if figure.missed else "\nmet")


def machine(programs: Sequence[tuple[str, Sequence[str]]]) -> str:
    """What it ran on: processor, cores, Python, and the versions of (name, command) that are there."""
    try:
        models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        models = []
    parts = [
        models[0] if models else platform.machine(),
        f"{os.cpu_count()} cores",
        f"Python {platform.python_version()}",
        *filter(None, (_version(name, command) for name, command in programs)),
    ]
    return ", ".join(parts)


def _version(name: str, command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return f"{name} {found.group()}" if found else None


def _spread(values: Sequence[float], unit: str) -> str:
    middle, low, high = (_short(number) for number in (median(values), min(values), max(values)))
    return f"{middle} {unit}" + (f"\n({low}..{high})" if len(values) > 1 else "")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
