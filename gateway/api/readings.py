"""GET readings: one series between two times, as points or in buckets."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from edge.contract.metrics import METRICS
from gateway.api import things
from gateway.api.deps import Deps, NameQuery, permitted
from gateway.api.problems import Problem
from gateway.api.query import parse_duration_ms, parse_instant_ms
from gateway.api.shapes import ReadingsJson, unit_of
from gateway.policy import Actor

MAX_POINTS = 10_000
MAX_BUCKETS = 5_000
_DAY_MS = 86_400_000

Text = Annotated[str | None, Query(max_length=100)]


def routes(deps: Deps) -> APIRouter:
    """GET /readings."""
    router = APIRouter()

    @router.get("/readings")
    def readings(
        _: Annotated[Actor, Depends(permitted("reading.read", things.device))],
        node: NameQuery,
        device: NameQuery,
        metric: Annotated[str, Query(max_length=32)],
        start: Text = None,
        end: Text = None,
        bucket: Text = None,
        limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = MAX_POINTS,
    ) -> ReadingsJson:
        """Readings with start <= time < end, oldest first; without `start` and `end`, those of the last 24 h.

        Times in ISO 8601 with zone or in ms since 1970; `bucket` as 60s, 5m, 1h or 1d, counted from `start`.
        """
        if metric not in METRICS:
            raise Problem(400, f"metric: {metric!r} is not in the table; there are {', '.join(METRICS)}")
        end_ms = _parsed("end", end, parse_instant_ms) if end else deps.now_us() // 1000 + 1
        start_ms = _parsed("start", start, parse_instant_ms) if start else max(0, end_ms - _DAY_MS)
        if start_ms >= end_ms:
            raise Problem(400, "start: not before end")
        answer: ReadingsJson = {
            "node": node,
            "device": device,
            "metric": metric,
            "unit": unit_of(metric),
            "readings": None,
            "buckets": None,
            "next_start_ms": None,
        }
        if bucket is None:
            points = deps.store.read(node, device, metric, start_ms, end_ms, limit)
            answer["readings"] = points
            answer["next_start_ms"] = points[-1][0] + 1 if len(points) == limit else None
            return answer
        bucket_ms = _parsed("bucket", bucket, parse_duration_ms)
        steps = -(-(end_ms - start_ms) // bucket_ms)
        if steps > MAX_BUCKETS:
            raise Problem(400, f"bucket: {steps} buckets asked for, at most {MAX_BUCKETS}; ask for longer ones")
        found = deps.store.read_bucketed(node, device, metric, start_ms, end_ms, bucket_ms)
        answer["buckets"] = [
            {"time_ms": one.time_ms, "points": one.points, "low": one.low, "mean": one.mean, "high": one.high,
             "last": one.last}
            for one in found
        ]  # fmt: skip
        return answer

    return router


def _parsed(name: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise Problem(400, f"{name}: {error}") from error
