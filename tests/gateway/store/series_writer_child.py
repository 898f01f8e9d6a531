"""Writes points to a store until it is killed, and says each batch only after `write` returned for it.

Started by test_store_sqlite.py: `series_writer_child.py FILE FIRST LAST`. A batch is 20 points of each of 5 series; after
batch LAST it does nothing more.
"""

import sys
from pathlib import Path

from gateway.store import SqliteStoreConfig, open_store

SERIES = [("kita-01", f"trap-{number}", "heartbeat") for number in range(5)]
TIMES = 20


def batch(number: int) -> list[tuple[tuple[str, str, str], int, float]]:
    """The points of one batch, the same in the child and in the test."""
    return [(key, number * TIMES + i, float(number)) for i in range(TIMES) for key in SERIES]


def main() -> None:
    """Runs until killed, or until its stdin is closed."""
    store = open_store(SqliteStoreConfig(type="sqlite", path=Path(sys.argv[1])))
    for number in range(int(sys.argv[2]), int(sys.argv[3]) + 1):
        store.write(batch(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
