"""The sentences people read, in each situation: who and when first, and nothing that a sensor can't know."""

from zoneinfo import ZoneInfo

import pytest

from gateway.alerting.lifecycle import Alert
from gateway.deployments import Deployment
from gateway.words import moment, span, words_for
from tests.gateway.town import HOUR_US, MINUTE_US, NOW_US

ZONE = ZoneInfo("Asia/Tokyo")
TRAP = Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番")


def alert(summary: str, *, age_us: int = 0, late: bool = False) -> Alert:
    return Alert("a", "r", "trap", "critical", "kitayama-03", "trap-11", "o", "firing", NOW_US - age_us, late, summary)


def place(kind: str) -> Deployment:
    return Deployment(node="n", device="d", kind=kind, place="東口")


@pytest.mark.parametrize(
    ("told", "deployment", "title", "body"),
    [
        (alert("trap_sprung"), TRAP, "【わな作動】", "北尾根 3番　6月3日 午前6時12分。まだ誰も確認していません。"),
        (alert("trap_sprung", age_us=45 * MINUTE_US, late=True), TRAP, "【わな作動】",
         "北尾根 3番　6月3日 午前5時27分（45分遅れて届いた知らせです）。まだ誰も確認していません。"),
        (alert("no heartbeat", age_us=27 * HOUR_US), TRAP, "【通信なし】",
         "北尾根 3番のわなと27時間 通信できません。作動しても知らせが届きません。見回りをお願いします。"),
        (alert("no heartbeat", age_us=3 * HOUR_US), place("node"), "【通信なし】",
         "東口と3時間 通信できません（最後の通信 6月3日 午前3時12分）。今の様子は分かりません。"),
        (alert("media_captured"), place("camera"), "【撮影】", "東口　6月3日 午前6時12分。カメラが写真を撮りました。"),
        (alert("no heartbeat", age_us=50 * MINUTE_US), place("home"), "【通信なし】",
         "東口と50分間 通信できません（最後の通信 6月3日 午前5時22分）。今の様子は分かりません。"),
        (alert("trap_moved"), TRAP, "【わなの揺れ】",
         "北尾根 3番　6月3日 午前6時12分。わなが揺れました。作動したかどうかは分かりません。近づく前に安全を確認してください。"),
        (alert("tamper_opened"), TRAP, "【機器に異常】",
         "北尾根 3番　6月3日 午前6時12分。機器のふたが開いたか、線が切れました。確認をお願いします。"),
        (alert("button_pressed"), place("home"), "【ボタン】",
         "東口　6月3日 午前6時12分。タグのボタンが押されました。まだ誰も確認していません。"),
        (alert("battery_voltage 3.3"), place("flow"), "【電池】", "東口　6月3日 午前6時12分。電池が弱くなっています（3.3 V）。"),
        (alert("device_down"), place("home"), "【故障】",
         "東口　6月3日 午前6時12分。機器を読み取れません。今の様子は分かりません。"),
        (alert("count_in +60 / 60 s"), place("flow"), "【人の流れ】", "東口　6月3日 午前6時12分。人が多くなっています。"),
        (alert("tags_near 1"), place("home"), "【外出のお知らせ】",
         "6月3日 午前6時12分　東口の近くにあるはずのタグが見つかりません。どなたかがご自宅を離れた可能性があります。"),
        (alert("cpu_load 9"), place("node"), "【お知らせ】", "東口　6月3日 午前6時12分。cpu_load 9"),
    ],
)  # fmt: skip
def test_what_is_told(told: Alert, deployment: Deployment, title: str, body: str) -> None:
    assert words_for(told, deployment, ZONE, NOW_US) == (title, body)


def test_a_flow_alert_speaks_of_the_place_and_not_of_metric_names() -> None:
    title, body = words_for(alert("count_in +31 / 60 s"), place("flow"), ZONE, NOW_US)
    assert title == "【人の流れ】"
    assert body.startswith("東口　6月3日 午前6時12分")
    assert "count_in" not in body


def test_a_device_that_nobody_deployed_is_called_by_its_technical_name() -> None:
    unknown = Deployment.model_construct(node="n", device="d", kind="device", place="kitayama-03", label="trap-11")
    assert "kitayama-03 trap-11" in words_for(alert("trap_sprung"), unknown, ZONE, NOW_US).body


@pytest.mark.parametrize(
    ("utc_us", "text"),
    [
        (NOW_US, "6月3日 午前6時12分"),
        (NOW_US - 6 * HOUR_US - 12 * MINUTE_US, "6月3日 午前0時0分"),
        (NOW_US + 5 * HOUR_US + 48 * MINUTE_US, "6月3日 午後0時0分"),
        (NOW_US + 17 * HOUR_US + 47 * MINUTE_US, "6月3日 午後11時59分"),
    ],
)
def test_moments(utc_us: int, text: str) -> None:
    assert moment(utc_us, ZONE) == text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0, "1分"), (1.9, "1分"), (119, "119分"), (120, "2時間"), (71.9 * 60, "71時間"), (72 * 60, "3日"), (200 * 60, "8日")],
)
def test_spans(minutes: float, text: str) -> None:
    assert span(int(minutes * MINUTE_US)) == text
