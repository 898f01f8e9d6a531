"""What a panel asks a series store, said once and put into each store's language: MetricsQL and InfluxQL. No panels, no I/O.

A reading is the measurement `<metric>` with the field `value` in InfluxDB, and `<metric>_value` in VictoriaMetrics; both tag it
with `node` and `device`. `$node`, `$timeFilter`, `$__interval` and `$__range` are Grafana's to fill in.

A time in which a series said nothing has no value: a gap stays a gap and is never a zero.
"""

from typing import Literal, NamedTuple

Engine = Literal["victoriametrics", "influxdb"]
ENGINES: tuple[Engine, ...] = ("victoriametrics", "influxdb")


class Ask(NamedTuple):
    """One question in both languages. `once`: one value of each series, not a curve."""

    metricsql: str
    influxql: str
    by: tuple[str, ...] = ("node", "device")
    """The tags by which its answers are told apart."""
    once: bool = False
    called: str = ""
    """What the legend says before the tags, where a panel asks two things."""


def latest(metric: str) -> Ask:
    """The last value of each series within the range that is shown, in the metric's unit."""
    return Ask(f"last_over_time({_series(metric)}[$__range])", f'SELECT last("value") {_from(metric)}{_BY}', once=True)


def curve(metric: str, how: Literal["mean", "max"] = "mean") -> Ask:
    """Each series over time, in the metric's unit: of each interval the mean, or the highest."""
    function = {"mean": "avg_over_time", "max": "max_over_time"}[how]
    return Ask(f"{function}({_series(metric)}[$__interval])", f'SELECT {how}("value") {_from(metric)}{_EACH}')


def words(metric: str = "heartbeat") -> Ask:
    """How often each device spoke in each interval. One that was silent has no value there."""
    return Ask(_spoke(metric), f'SELECT count("value") {_from(metric)}{_EACH}')


def grown(metric: str) -> Ask:
    """By how much each total grew in each interval. What passed in a silence is told with the first word after it, or never."""
    # VictoriaMetrics takes what says nothing for what did not grow.
    return Ask(
        f"increase({_series(metric)}[$__interval]) if {_spoke(metric)}",
        f'SELECT non_negative_difference(last("value")) {_from(metric)}{_EACH}',
    )


def grown_in_all(metric: str) -> Ask:
    """By how much each total grew within the range that is shown."""
    return Ask(f"increase({_series(metric)}[$__range])", f'SELECT spread("value") {_from(metric)}{_BY}', once=True)


def grown_since(metric: str, called: str) -> Ask:
    """Of each node, over time: by how much this total of all its devices grew since the beginning of the range that is shown.

    InfluxQL can't reckon with two measurements in one query: who wants a difference draws both.
    """
    value = f"last_over_time({_series(metric)}[$__interval])"
    # One device that says nothing for an interval must not hide what the others of its node say.
    each = f'SELECT non_negative_difference(last("value")) AS "grew" {_from(metric)}{_EACH}'
    node = f'SELECT sum("grew") AS "grew" FROM ({each}) WHERE $timeFilter GROUP BY time($__interval), "node" fill(none)'  # noqa: S608 - our own words
    return Ask(
        f"sum by (node) (keep_last_value({value}) - range_first({value})) if sum by (node) ({_spoke(metric)})",
        f'SELECT cumulative_sum("grew") FROM ({node}) WHERE $timeFilter GROUP BY "node"',  # noqa: S608
        by=("node",),
        called=called,
    )


def nodes_with(*metrics: str) -> tuple[str, str]:
    """What fills the variable `$node`, in MetricsQL and in InfluxQL: nodes that ever said one of these metrics."""
    names, measurements = "|".join(f"{one}_value" for one in metrics), ", ".join(f'"{one}"' for one in metrics)
    return f'label_values({{__name__=~"{names}"}}, node)', f'SHOW TAG VALUES FROM {measurements} WITH KEY = "node"'


_BY = ' GROUP BY "node", "device"'
_EACH = ' GROUP BY time($__interval), "node", "device" fill(none)'


def _series(metric: str) -> str:
    return f'{metric}_value{{node=~"$node"}}'


def _spoke(metric: str) -> str:
    return f"count_over_time({_series(metric)}[$__interval])"


def _from(metric: str) -> str:
    return f'FROM "{metric}" WHERE $timeFilter AND "node" =~ /^$node$/'
