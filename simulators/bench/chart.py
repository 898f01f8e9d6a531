"""A chart of 24 hours of one device, by the API of a real gateway over a large series file, while a fleet talks to that gateway.

The file is made once, by the store, and kept in build/bench: a reading a minute of each of 1,000 devices, up to midnight of the
day on which it was made, its hours and days summed up. What is measured works on a copy. Charts are of devices and days drawn by
lot.
"""

import http.client
import json
import random
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from gateway.store import SqliteStore, SqliteStoreConfig
from simulators.bench import servers
from simulators.bench.figures import Figure
from simulators.bench.latency import share
from simulators.broker import mosquitto
from simulators.ports import free_port
from simulators.town import beside_python, write_toml

ALLOWED_MS = 50.0
SERIES, STEP, POINTS = 1000, "5m", 288
CHARTS, EVERY_S = 200, 0.1
RATE = 200.0
"""Batches a second of the fleet, meanwhile."""
_MINUTE_MS, _DAY_MS = 60_000, 86_400_000
_AT_ONCE = 10_000


def measure(folder: Path, rows: int, charts: int = CHARTS) -> list[Figure]:
    """p50 and p95 in ms. RuntimeError where a chart is not whole, or a record of the load got lost."""
    folder.mkdir(parents=True)
    minutes = max(rows // SERIES, 2 * 1440)
    kept = _file(minutes)
    end_ms = int((kept.parent / f"{kept.name}.end").read_text(encoding="ascii"))
    shutil.copyfile(kept, folder / "series.db")
    took_ms: list[float] = []
    token, port = secrets.token_hex(16), free_port()
    with mosquitto(folder / "broker", save_every=0) as broker:
        argv = [str(beside_python("satomori-gateway")), "run", str(_configure(folder, broker.url, port, token))]
        with servers.running(argv, folder / "log", lambda: _answers(port)):
            fleet = [sys.executable, "-m", "simulators.fleet", broker.url, "--rate", str(RATE),
                     "--for", str(charts * EVERY_S + 4), "--json"]  # fmt: skip
            with subprocess.Popen(fleet, stdout=subprocess.PIPE, text=True) as load:
                try:
                    time.sleep(3)  # until the load stands
                    took_ms += _charts(port, token, end_ms - minutes * _MINUTE_MS, end_ms, charts)
                    out, _ = load.communicate(timeout=60)
                finally:
                    load.kill()
    report = json.loads(out)
    if not report["ok"]:
        raise RuntimeError(f"the load: {report['lost']} of {report['produced']} records were not acknowledged")
    of = f"of {minutes * SERIES / 1e6:g} M readings, {RATE:g} msg/s meanwhile"
    return [
        Figure(f"API: 24 h chart of one device p95 {of}", "ms", [share(took_ms, 0.95)], f"allowed: {ALLOWED_MS:g} ms",
               [ALLOWED_MS], 1.0, less_is_better=True),
        Figure("the same p50", "ms", [share(took_ms, 0.5)], less_is_better=True),
    ]  # fmt: skip


def _charts(port: int, token: str, start_ms: int, end_ms: int, charts: int) -> list[float]:
    """What each took, from the question to the last byte of the answer, in ms."""
    chance, took_ms = random.Random(1), []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        for number in range(charts):
            key = _key(chance.randrange(SERIES))
            from_ms = start_ms + chance.randrange(0, end_ms - start_ms - _DAY_MS, _MINUTE_MS)
            path = (
                f"/api/v1/readings?node={key[0]}&device={key[1]}&metric={key[2]}"
                f"&start={from_ms}&end={from_ms + _DAY_MS}&bucket={STEP}"
            )
            begun = time.perf_counter()
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            body = answer.read()
            took_ms.append((time.perf_counter() - begun) * 1000)
            if answer.status != 200 or len(json.loads(body)["buckets"]) != POINTS:
                raise RuntimeError(f"chart {number} is not whole: {answer.status} {body[:200]!r}")
            time.sleep(EVERY_S)
    return took_ms


def _file(minutes: int) -> Path:
    """The series file of so many minutes, made where there is none. Beside it stands the time at which it ends."""
    path = servers.INSTALLED.absolute() / f"series-{minutes}.db"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".making")
    for old in path.parent.glob(f"{making.name}*"):
        old.unlink()
    end_ms = time.time_ns() // 1_000_000 // _DAY_MS * _DAY_MS
    with closing(SqliteStore(SqliteStoreConfig(type="sqlite", path=making, keep=0))) as store:
        for number in range(SERIES):
            key, begin_ms = _key(number), end_ms - minutes * _MINUTE_MS
            for at in range(0, minutes, _AT_ONCE):
                rows = range(at, min(at + _AT_ONCE, minutes))
                store.write([(key, begin_ms + row * _MINUTE_MS, row % 1440 / 50 + number) for row in rows])
        while store.behind:
            store.tend((end_ms + _DAY_MS) * 1000)
    (path.parent / f"{path.name}.end").write_text(str(end_ms), encoding="ascii")
    making.rename(path)
    return path


def _key(number: int) -> tuple[str, str, str]:
    return f"kept-{number // 10}", f"device-{number % 10}", "cpu_temperature"


def _configure(folder: Path, broker: str, port: int, token: str) -> Path:
    tokens = folder / "tokens"
    tokens.write_text(f"operator operator,officer {token}\n", encoding="utf-8")
    tokens.chmod(0o600)
    write_toml(
        folder / "gateway.toml",
        {
            "broker": {"url": broker},
            "state": {"url": f"sqlite:///{folder / 'state.db'}"},
            "store": {"type": "sqlite", "path": str(folder / "series.db"), "keep": "0s"},
            "api": {"port": port, "tokens_file": str(tokens)},
            "media": {"folder": str(folder / "media")},
            "contact": {"phone": {"type": "webhook", "url": "http://127.0.0.1:9"}},
            "route": [{"to": ["phone"]}],
        },
    )
    return folder / "gateway.toml"


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/healthz")
            return connection.getresponse().status < 500
    except OSError:
        return False
