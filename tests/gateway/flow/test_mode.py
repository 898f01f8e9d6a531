"""The town's mode as rules hear of it."""

import json
from pathlib import Path

from sqlalchemy import insert, select

from gateway.flow.mode import tell_mode, town_mode
from gateway.rules.crowd import TOWN_MODE
from gateway.state import open_state
from gateway.state.tables import events, town_modes


def test_a_gateway_that_begins_in_disaster_mode_tells_its_rules_so(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    with state.write() as connection:
        assert town_mode(connection) == "normal"
        for number, mode in enumerate(("disaster", "normal", "disaster")):
            connection.execute(insert(town_modes).values(mode=mode, since_us=number, who="tanaka", why="大雨警報"))
        tell_mode(connection, 7)
        [row] = connection.execute(select(events)).all()
    assert (row.type, json.loads(row.body), row.time_us) == (TOWN_MODE, {"mode": "disaster"}, 7)
    state.close()
