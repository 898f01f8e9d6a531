"""The yardstick: the least that publishes the same records, one message each, QoS 1, and forgets them. FROZEN.

No outbox, no batches, no identity, no devices: what is lost on the way is lost. Records come as JSON lines on stdin.

    python -m simulators.bench.edge_plain HOST PORT PER_SECOND      (prints one JSON object)
"""

import json
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main() -> int:
    """The process that is measured."""
    host, port, per_second = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "plain-loop")
    client.connect(host, port)
    client.loop_start()
    before_s = time.process_time()
    begun = time.monotonic()
    count = 0
    for line in sys.stdin:
        record = json.loads(line)
        said = client.publish(f"plain/{record['device']}", json.dumps(record), qos=1)
        count += 1
        time.sleep(max(begun + count / per_second - time.monotonic(), 0))
    if count:
        said.wait_for_publish(10)
    cpu_s = time.process_time() - before_s
    rss_kib = int(Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()[0])
    client.disconnect()
    client.loop_stop()
    print(json.dumps({"records": count, "cpu_s": cpu_s, "rss_mib": rss_kib / 1024}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
