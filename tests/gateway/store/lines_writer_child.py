"""Writes points to a VictoriaMetrics and settles them until it kills itself; says each number once `write` returned for it.

Started by test_store_victoriametrics.py: `lines_writer_child.py URL JOURNAL STAGE FIRST`. STAGE is a method, as
`journal:Journal.append`: it is killed, by -9, before the third call of it.
"""

import importlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.store.victoriametrics import VictoriaMetricsStore, VictoriaMetricsStoreConfig

KEY = ("kita-01", "trap-11", "heartbeat")
NOON_MS = 1_700_000_000_000


def kill_before(stage: str) -> None:
    """Has the third call of a method end this process."""
    module, _, path = stage.partition(":")
    of, _, name = path.partition(".")
    where = getattr(importlib.import_module(f"gateway.store.{module}"), of)
    honest, calls = getattr(where, name), itertools.count(1)

    def called(*given: Any, **named: Any) -> Any:
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(*given, **named)

    setattr(where, name, called)


def main() -> None:
    """Runs until it is killed."""
    url, journal, stage, first = sys.argv[1:]
    kill_before(stage)
    seconds = itertools.count(0, 3)  # so that all it does is soon due, and some of it is young
    config = VictoriaMetricsStoreConfig(type="victoriametrics", url=url, journal=Path(journal))
    store = VictoriaMetricsStore(config, lambda: float(next(seconds)))
    for number in itertools.count(int(first)):
        store.write([(KEY, NOON_MS + number, float(number))])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        store.settle()


if __name__ == "__main__":
    main()
