"""The dashboards over readings: wildlife and flow. The panels are the same for every store; only what they ask is in "
"its language."""

from grafana_foundation_sdk.builders import dashboard

from dashboards.grafana.asks import Ask, Engine, curve, grown, grown_in_all, grown_since, latest, nodes_with, words
from dashboards.grafana.panels import (
    BAD,
    GOOD,
    NOT_KNOWN,
    WATCH,
    Look,
    Panel,
    Said,
    asking,
    bars,
    board,
    columns,
    history,
    lines,
    node_choice,
)

CELL = ((None, NOT_KNOWN), (1, GOOD))
"""An interval in which something spoke; one without is an empty cell."""
A_DAY_S = 26 * 3600
"""What speaks once a day may be some hours late."""


def wildlife(engine: Engine) -> dashboard.Dashboard:
    """Which traps and cameras need a visit, and how are their batteries?"""
    volts = ((None, BAD), (3.2, WATCH), (3.4, GOOD))
    asked: list[tuple[Panel, *tuple[Ask, ...]]] = [
        (
            history(
                Look(
                    Said("わなの状態", "Traps"),
                    Said(
                        "わなのスイッチが最後に知らせた状態。空白は不明：その間、何も届いていない。見回りが必要なのは赤と空白。",
                        "What the trap's switch said. An empty cell is unknown: nothing came. Visit what is red, and "
                        "what is empty.",
                    ),
                    "none",
                    ((None, NOT_KNOWN), (0, GOOD), (0.5, BAD)),
                    (("0", Said("見張り中", "set"), GOOD), ("1", Said("作動", "sprung"), BAD)),
                ),
                interval="10m",
            ),
            curve("trap_closed", "max"),
        ),
        (
            history(
                Look(
                    Said("届いているか", "Who speaks"),
                    Said(
                        "機器が「動いている」と知らせた回数。空白は不明：電池、電波、機器のどれかを見に行く。",
                        "How often each device said that it is alive. An empty cell is unknown: see to its battery, its "
                        "radio or itself.",
                    ),
                    "short",
                    CELL,
                ),
                interval="10m",
            ),
            words(),
        ),
        (
            bars(
                Look(
                    Said("電池（最後の値）", "Batteries, last value"),
                    Said(
                        "表示期間の最後に届いた電圧。色は3.6Vの電池の目安：3.4V未満は交換の準備、3.2V未満は交換。",
                        "The last voltage within the range that is shown. Colours are for cells of 3.6 V: below 3.4 V "
                        "soon, below 3.2 V now.",
                    ),
                    "volt",
                    volts,
                )
            ),
            latest("battery_voltage"),
        ),
        (
            lines(
                Look(
                    Said("電池の変化", "Batteries over time"),
                    Said(
                        "平均電圧。急に下がった機器は、寒さか漏電を疑う。線が切れた所は不明。",
                        "Mean voltage. One that falls quickly is cold or leaks. Where the line ends, nothing came.",
                    ),
                    "volt",
                    volts,
                ),
                join_s=A_DAY_S,
                interval="10m",
            ),
            curve("battery_voltage"),
        ),
        (
            columns(
                Look(
                    Said("撮影枚数", "Pictures taken in"),
                    Said(
                        "1時間にカメラから取り込んだ枚数。何日も無いカメラは、レンズ、カード、電池を見る。",
                        "Pictures taken in from each camera in an hour. One without any for days: look at its lens, card "
                        "and battery.",
                    ),
                    "suffix: 枚",
                ),
                interval="1h",
            ),
            grown("media_count"),
        ),
        (
            bars(
                Look(
                    Said("餌の残り", "Bait left"),
                    Said(
                        "表示期間の最後に届いた値。量る機器のあるわなだけ。",
                        "The last value within the range that is shown, of traps that measure it.",
                    ),
                    "percent",
                    ((None, BAD), (20, WATCH), (40, GOOD)),
                )
            ),
            latest("bait_level"),
        ),
        (
            lines(
                Look(
                    Said("わなの電波", "The traps' radio"),
                    Said(
                        "受信した電波の強さ。-115dBmより弱いと、知らせが届かないことがある。",
                        "Strength of what was received. Below -115 dBm some words are lost on the way.",
                    ),
                    "dBm",
                    ((None, BAD), (-115, WATCH), (-105, GOOD)),
                ),
                join_s=A_DAY_S,
                interval="10m",
            ),
            curve("rssi"),
        ),
        (
            columns(
                Look(
                    Said("わなの揺れ", "Shocks at the traps"),
                    Said(
                        "1時間に感じた揺れの回数。作動していないのに多いわなは、ずれていないか見る。",
                        "Shocks felt in an hour. Many at a trap that is still set: see whether it was moved.",
                    ),
                    "suffix: 回",
                ),
                interval="1h",
            ),
            grown("bump"),
        ),
    ]
    return board(
        "satomori-wildlife",
        Said("里守り：わなとカメラ", "satomori: wildlife"),
        Said(
            "どのわなとカメラに見回りが必要か。電池は足りるか。",
            "Which traps and cameras need a visit, and how are their batteries?",
        ),
        [asking(panel, engine, *asks) for panel, *asks in asked],
        since="now-24h",
    ).with_variable(node_choice(engine, nodes_with("trap_closed", "media_count")))


def flow(engine: Engine) -> dashboard.Dashboard:
    """How full, where and when?"""
    asked: list[tuple[Panel, *tuple[Ask, ...]]] = [
        (
            lines(
                Look(
                    Said("入った人と出た人", "Came and went"),
                    Said(
                        "場所ごとに、表示期間の初めから数えた人数。2本の線の間が、その間に入って今も居る人。"
                        "期間の初めに居た人は含まず、数え漏れの補正もない：補正した人数は地図の画面にある。",
                        "Of each place, counted from the beginning of the range that is shown. Between the two lines are "
                        "those who came in "
                        "since then and are still there. Who was there before is not in it, and nothing is corrected: "
                        "the corrected number "
                        "is on the map.",
                    ),
                    "suffix: 人",
                    width=24,
                    height=9,
                ),
                join_s=3600,
                interval="10m",
            ),
            grown_since("count_in", "入 in"),
            grown_since("count_out", "出 out"),
        ),
        (
            columns(
                Look(
                    Said("1時間に入った人", "Came in, by the hour"),
                    Said(
                        "計測器ごと。高い時間帯が混む時間帯。柱の無い時間は不明：計測器から届いていない。",
                        "Of each counter. The high hours are the busy ones. An hour without a column is unknown: nothing came.",
                    ),
                    "suffix: 人",
                ),
                interval="1h",
            ),
            grown("count_in"),
        ),
        (
            columns(
                Look(
                    Said("1時間に出た人", "Went out, by the hour"),
                    Said(
                        "計測器ごと。入った人より多い時間帯は、帰る人の流れ。",
                        "Of each counter. Hours with more of them than came in are the way home.",
                    ),
                    "suffix: 人",
                ),
                interval="1h",
            ),
            grown("count_out"),
        ),
        (
            bars(
                Look(
                    Said("入った人の合計", "Came in, all together"),
                    Said(
                        "表示期間の合計。どの入口が使われているか。",
                        "Within the range that is shown: which entrance people take.",
                    ),
                    "suffix: 人",
                )
            ),
            grown_in_all("count_in"),
        ),
        (
            history(
                Look(
                    Said("計測器は数えているか", "Do the counters count"),
                    Said(
                        "計測器が値を送った回数。空白は不明：その間の人数は0ではない。",
                        "How often each counter told its total. An empty cell is unknown: it does not mean nobody.",
                    ),
                    "short",
                    CELL,
                ),
                interval="10m",
            ),
            words("count_in"),
        ),
    ]
    return board(
        "satomori-flow",
        Said("里守り：人の流れ", "satomori: flow"),
        Said("どこが、いつ、どれだけ混むか。", "How full, where and when?"),
        [asking(panel, engine, *asks) for panel, *asks in asked],
        since="now/d",
    ).with_variable(node_choice(engine, nodes_with("count_in")))
