"""What `/metrics` says of deliveries: how long people wait for a message, and whether one waits that should be gone."""

import random
from pathlib import Path

from sqlalchemy import insert

from gateway.notify import Delivered, Outcome, Retry
from gateway.notify.deliver import Deliverer
from gateway.notify.message import Message
from gateway.state import open_state, tables
from gateway.telemetry import Telemetry
from tests.gateway.scraped import Shown
from tests.gateway.town import NOW_US, SECOND_US


class Provider:
    """Takes what comes, or is busy."""

    knows_repetition = True
    busy = False

    def send(self, _id: str, _to: str, _message: Message) -> Outcome:
        return Retry("busy", after_s=60) if self.busy else Delivered()

    def close(self) -> None:
        """Nothing is open."""


def test_how_long_a_message_took_and_how_long_one_is_overdue(tmp_path: Path) -> None:
    state, telemetry, provider, now_us = open_state(f"sqlite:///{tmp_path / 'state.db'}"), Telemetry(), Provider(), NOW_US
    deliverer = Deliverer(state, {"contact.office": provider}, telemetry, random.Random(1), lambda: now_us)

    def queue(id_: str) -> None:
        body = Message(id=id_, title="【わな作動】", body="北尾根 3番。").model_dump_json()
        row = {"id": id_, "contact": "office", "channel": "webhook", "kind": "alert", "state": "queued", "body": body,
               "created_us": now_us, "due_us": now_us, "attempts": 0}  # fmt: skip
        with state.write() as connection:
            connection.execute(insert(tables.notifications), row)

    queue("n-1")
    now_us += 40 * SECOND_US
    deliverer.count()
    assert Shown(telemetry)("notifications_overdue_seconds") == 40, "nobody has looked yet"
    deliverer.step()
    shown = Shown(telemetry)
    assert shown("notifications_overdue_seconds") == 0
    assert (shown("delivery_seconds_count", "webhook"), shown("delivery_seconds_sum", "webhook")) == (1, 40)
    assert shown("turned_timestamp_seconds", "deliver") == now_us / 1e6

    provider.busy = True
    queue("n-2")
    deliverer.step()
    now_us += 30 * SECOND_US
    deliverer.count()
    shown = Shown(telemetry)
    assert (shown("notifications_waiting"), shown("notifications_overdue_seconds")) == (1, 0), "it is due later"
    assert shown("delivery_seconds_count", "webhook") == 1, "what did not get there took no time"
    state.close()
