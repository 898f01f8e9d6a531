"""From committed facts to alerts: rules -> life cycle -> mute, in ONE transaction with the cursor and what follows from a move.

Facts come in the order of their commit. Events are read back from the table behind a cursor, so a crash between the facts'
commit and this one only repeats the work; an alert's id comes from what opened it, so the repetition changes nothing. Readings
are handed over by the pipeline before they are acknowledged.

What a rule said last stands beside what it remembers, and each tick compares it with the alerts' rows: whatever was missed, by a
crash, a restored database or a mistake, is mended by the level, not by an edge that never comes again. What a move leads to
(pages, messages) is `paging`'s.

watch.py     `Watch`: what comes in, time, and the transaction; the only one that others make
judge.py     facts and time -> what the rules say
known.py     what rules remember and said last, which alerts are open: in memory as it is saved
mutes.py     which open alerts are muted, and by what
moving.py    what rules say -> moves of alerts, written
watched.py   a rule as the watch has it
"""

from gateway.watch.watch import Watch
from gateway.watch.watched import WatchedRule

__all__ = ["Watch", "WatchedRule"]
