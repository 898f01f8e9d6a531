"""Writing down that an alert moved: its row by compare-and-set on `version`, and the line in its history. Nothing else."""

from dataclasses import asdict

from sqlalchemy import Connection, bindparam, insert, update

from gateway.alerting.lifecycle import Move
from gateway.state.tables import alert_history, alerts

# What a move may change; the rest stays as it was opened, or is refreshed by the watch alone.
_CHANGED = (
    "state", "fired_us", "acknowledged_us", "acknowledged_by", "shelved_until_us", "suppressed_by", "resolved_us", "version",
)  # fmt: skip
_ADD, _ADD_HISTORY = insert(alerts), insert(alert_history)
_CHANGE = (
    update(alerts)
    .where(alerts.c.id == bindparam("key"), alerts.c.version == bindparam("seen"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED})
)


def write_move(connection: Connection, move: Move, now_us: int) -> bool:
    """Writes the move of an alert as it was read at `version - 1`. False, and nothing written, when it has changed since."""
    alert = move.alert
    if move.before is None:
        connection.execute(_ADD, asdict(alert))
    else:
        values = {f"new_{name}": getattr(alert, name) for name in _CHANGED}
        done = connection.execute(_CHANGE, {"key": alert.id, "seen": alert.version - 1, **values})
        if done.rowcount != 1:
            return False
    connection.execute(
        _ADD_HISTORY,
        {"alert": alert.id, "at_us": now_us, "before": move.before, "after": alert.state, "who": move.who, "why": move.why},
    )
    return True
