"""Delivers what is due until it is killed; the phone tells the test when an attempt has got there.

Started by test_deliver.py: `delivery_child.py DATABASE_URL PHONE_URL`.
"""

import random
import sys
import time

from gateway.notify.deliver import Deliverer
from gateway.notify.webhook import Webhook, WebhookConfig
from gateway.state import open_state
from gateway.telemetry import Telemetry


def main() -> None:
    """One attempt at everything."""
    state = open_state(sys.argv[1])
    phone = Webhook("phone", WebhookConfig.model_validate({"type": "webhook", "url": sys.argv[2]}))
    Deliverer(state, {"contact.phone": phone}, Telemetry(), random.Random(1), lambda: time.time_ns() // 1000).step()


if __name__ == "__main__":
    main()
