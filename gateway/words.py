"""The words people read in a notification. Japanese; who and when first, one idea a sentence, no promise a sensor can't keep.

The catalogues in other languages come with the channels; until then this is the one place to change a sentence.
"""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.alerting.lifecycle import Alert
from gateway.deployments import Deployment


class Words(NamedTuple):
    """A notification's text."""

    title: str
    body: str


_NOBODY_YET = "まだ誰も確認していません。"


_SENTENCES = {
    "trap_moved": Words("【わなの揺れ】", "わなが揺れました。作動したかどうかは分かりません。近づく前に安全を確認してください。"),
    "tamper_opened": Words("【機器に異常】", "機器のふたが開いたか、線が切れました。確認をお願いします。"),
    "button_pressed": Words("【ボタン】", f"タグのボタンが押されました。{_NOBODY_YET}"),
}
"""Events whose sentence is always the same."""


def words_for(alert: Alert, deployment: Deployment, zone: ZoneInfo, now_us: int) -> Words:  # noqa: PLR0911 - one a sentence
    """What a person is told of an alert."""
    where = f"{deployment.place} {deployment.label}".strip()
    when = moment(alert.since_us, zone)
    late = f"（{span(now_us - alert.since_us)}遅れて届いた知らせです）" if alert.late else ""
    if alert.summary == "trap_sprung":
        return Words("【わな作動】", f"{where}　{when}{late}。{_NOBODY_YET}")
    if alert.summary.startswith("no "):
        if deployment.kind == "trap":
            return Words(
                "【通信なし】",
                f"{where}のわなと{lasting(now_us - alert.since_us)} 通信できません。"
                "作動しても知らせが届きません。見回りをお願いします。",
            )
        return Words(
            "【通信なし】",
            f"{where}と{lasting(now_us - alert.since_us)} 通信できません（最後の通信 {when}）。今の様子は分かりません。",
        )
    if said := _SENTENCES.get(alert.summary):
        return Words(said.title, f"{where}　{when}{late}。{said.body}")
    if alert.summary == "media_captured":
        return Words("【撮影】", f"{where}　{when}{late}。カメラが写真を撮りました。")
    measured = alert.summary.split(" ")[0]
    if measured == "tags_near" and deployment.kind == "home":
        return Words(
            "【外出のお知らせ】",
            f"{when}{late}　{where}の近くにあるはずのタグが見つかりません。どなたかがご自宅を離れた可能性があります。",
        )
    if measured in ("count_in", "count_out"):
        return Words("【人の流れ】", f"{where}　{when}{late}。人が多くなっています。")
    if measured == "battery_voltage":
        return Words("【電池】", f"{where}　{when}{late}。電池が弱くなっています（{alert.summary.split(' ')[-1]} V）。")
    if measured == "device_down":
        return Words("【故障】", f"{where}　{when}{late}。機器を読み取れません。今の様子は分かりません。")
    return Words("【お知らせ】", f"{where}　{when}{late}。{alert.summary}")


def over(title: str, body: str) -> Words:
    """The same notification, where it is over before it could be delivered."""
    body = body.removesuffix(_NOBODY_YET)  # what is over waits for nobody
    stop = "" if body.endswith("。") else "。"
    return Words(f"（解除済み）{title}", f"{body}{stop}この知らせはすでに終わっています。")


def moment(time_us: int, zone: ZoneInfo) -> str:
    """6月3日 午前6時12分."""
    time = datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(zone)
    half, hour = ("午前", time.hour) if time.hour < 12 else ("午後", time.hour - 12)
    return f"{time.month}月{time.day}日 {half}{hour}時{time.minute}分"


def span(duration_us: int) -> str:
    """45分, 26時間, 3日: one unit, rounded down, at least one minute."""
    minutes = max(duration_us // 60_000_000, 1)
    if minutes < 120:
        return f"{minutes}分"
    hours = minutes // 60
    return f"{hours}時間" if hours < 72 else f"{hours // 24}日"


def lasting(duration_us: int) -> str:
    """45分間, 26時間, 3日間: for so long."""
    text = span(duration_us)
    return text if text.endswith("間") else f"{text}間"
