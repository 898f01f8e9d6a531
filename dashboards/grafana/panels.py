"""How things are drawn: the few kinds of panel there are, and where their answers come from. No metric is named here.

Each panel has a title, a description, a unit and thresholds. What nobody said is 不明, in no colour that means good.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statushistory, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

from dashboards.grafana.asks import Ask, Engine

GOOD, WATCH, BAD, NEUTRAL, NOT_KNOWN = "green", "yellow", "red", "blue", "#808080"
UNKNOWN = "不明 / unknown"

DATA: dict[Engine, common_model.DataSourceRef] = {
    "victoriametrics": common_model.DataSourceRef(type_val="prometheus", uid="satomori-victoriametrics"),
    "influxdb": common_model.DataSourceRef(type_val="influxdb", uid="satomori-influxdb"),
}
"""The data sources by the uid that the provisioning files give them."""

Panel = stat.Panel | bargauge.Panel | timeseries.Panel | statushistory.Panel
_Kind = TypeVar("_Kind", stat.Panel, bargauge.Panel, timeseries.Panel, statushistory.Panel)


class Said(NamedTuple):
    """What people read: Japanese first, then English."""

    ja: str
    en: str

    @property
    def line(self) -> str:
        """As a title."""
        return f"{self.ja} / {self.en}"

    @property
    def text(self) -> str:
        """As a description."""
        return f"{self.ja}\n\n{self.en}"


class Look(NamedTuple):
    """What is said of a panel, its unit (Grafana's id), and from which value on each colour counts.

    The first colour is also that of no value at all: it never means good.
    """

    title: Said
    description: Said
    unit: str
    colours: Sequence[tuple[float | None, str]] = ((None, NEUTRAL),)
    names: Sequence[tuple[str, Said, str]] = ()
    """Words in place of values: (value, words, colour)."""
    width: int = 12
    height: int = 8


class InfluxQuery(Builder[Dataquery], Dataquery):
    """A target in InfluxQL; the SDK has no model of Grafana's InfluxDB data source. It is its own builder."""

    def __init__(self, query: str, legend: str, ref: str) -> None:
        self._query, self._legend, self._ref = query, legend, ref

    def build(self) -> "InfluxQuery":
        """As the SDK's own builders do."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana's InfluxDB data source keeps it."""
        return {
            "alias": self._legend,
            "datasource": DATA["influxdb"],
            "query": self._query,
            "rawQuery": True,
            "refId": self._ref,
            "resultFormat": "time_series",
        }


def asking(panel: Panel, engine: Engine, *asks: Ask) -> Panel:
    """The panel with what it asks, in an engine's language."""
    for ref, ask in zip("ABC", asks, strict=False):
        if engine == "influxdb":
            legend = " ".join([ask.called, *(f"$tag_{tag}" for tag in ask.by)])
            panel = panel.with_target(InfluxQuery(ask.influxql, legend.strip(), ref))
        else:
            legend = " ".join([ask.called, *(f"{{{{{tag}}}}}" for tag in ask.by)])
            panel = panel.with_target(metrics_target(ask.metricsql, legend.strip(), ref=ref, once=ask.once))
    return panel


def metrics_target(expr: str, legend: str, *, ref: str = "A", once: bool = False) -> Builder[Dataquery]:
    """A target in MetricsQL."""
    query = prometheus.Dataquery().datasource(DATA["victoriametrics"]).ref_id(ref).expr(expr).legend_format(legend)
    return query.instant() if once else query.range()


def number(look: Look) -> stat.Panel:
    """The value now, large."""
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().reduce_options(last).color_mode(common_model.BigValueColorMode.BACKGROUND)
    return _dressed(panel.graph_mode(common_model.BigValueGraphMode.NONE), look)


def bars(look: Look) -> bargauge.Panel:
    """The last value of each series as a bar."""
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = bargauge.Panel().reduce_options(last).orientation(common_model.VizOrientation.HORIZONTAL)
    return _dressed(panel.display_mode(common_model.BarGaugeDisplayMode.BASIC), look)


def lines(look: Look, *, join_s: int, interval: str = "1m") -> timeseries.Panel:
    """Curves. Points that are at most `join_s` apart are joined; a longer silence is a gap."""
    legend = common.VizLegendOptions().show_legend(True).display_mode(common_model.LegendDisplayMode.LIST)
    legend = legend.placement(common_model.LegendPlacement.BOTTOM).calcs([])
    panel = timeseries.Panel().legend(legend).span_nulls(join_s * 1000).interval(interval)
    if len(look.colours) > 1:
        style = common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.LINE)
        panel = panel.thresholds_style(style)
    panel = panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    return _dressed(panel.show_points(common_model.VisibilityMode.AUTO), look)


def columns(look: Look, *, interval: str) -> timeseries.Panel:
    """A column an interval, those of one interval on top of each other."""
    stacked = common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A")
    panel = lines(look, join_s=0, interval=interval).draw_style(common_model.GraphDrawStyle.BARS)
    return panel.fill_opacity(70).stacking(stacked).span_nulls(False)


def history(look: Look, *, interval: str) -> statushistory.Panel:
    """A row a series, a cell an interval. An interval without a word is an empty cell."""
    panel = statushistory.Panel().interval(interval).max_data_points(100).show_value(common_model.VisibilityMode.NEVER)
    return _dressed(panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)), look)


def _dressed(panel: _Kind, look: Look) -> _Kind:
    steps = [model.Threshold(value=value, color=colour) for value, colour in look.colours]
    thresholds = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    if look.names:
        words: dict[str, model.ValueMappingResult] = {
            value: model.ValueMappingResult(text=said.line, color=colour, index=index)
            for index, (value, said, colour) in enumerate(look.names)
        }
        panel = panel.mappings([model.ValueMap(options=words)])
    panel = panel.title(look.title.line).description(look.description.text).unit(look.unit).thresholds(thresholds)
    return panel.span(look.width).height(look.height).no_value(UNKNOWN)


def board(uid: str, title: Said, question: Said, panels: Sequence[Panel], *, since: str) -> dashboard.Dashboard:
    """A dashboard of one question, in the reader's own time zone. `since`: where the range that it shows begins."""
    built = dashboard.Dashboard(title.line).uid(uid).description(question.text).tags(["satomori"]).time(since, "now")
    built = built.timezone("browser").refresh("1m").readonly().tooltip(model.DashboardCursorSync.CROSSHAIR)
    for number_, panel in enumerate(panels, 1):
        built = built.with_panel(panel.id(number_))
    return built


def node_choice(engine: Engine, queries: tuple[str, str]) -> dashboard.QueryVariable:
    """The variable `$node`: all of those that the query gives, or some."""
    query: Any = queries[engine == "influxdb"]
    if engine == "victoriametrics":
        query = {"query": query, "refId": "node"}
    label = Said("ノード", "node")
    variable = dashboard.QueryVariable("node").label(label.line).datasource(DATA[engine]).query(query)
    variable = variable.multi(True).include_all(True).sort(model.VariableSort.ALPHABETICAL_ASC)
    variable = variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
