"""What is told of each kind of alert, in each language: who and when first, and nothing that a sensor can't know."""

import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alerting.lifecycle import Alert
from gateway.deployments import Deployment, Deployments
from gateway.notify.message import Language
from gateway.words import LANGUAGES, Words, alert_words
from tests.gateway.town import HOUR_US, MINUTE_US, NOW_US

ZONE = ZoneInfo("Asia/Tokyo")
TRAP = Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番")
CAMERA = Deployment(node="kitayama-03", device="cam-02", kind="camera", place="沢口", label="")
EAST = Deployment(node="hashi-01", device="flow-01", kind="flow", place="東口", label="")
UNDEPLOYED = Deployments(())


def told(
    summary: str,
    deployment: Deployment = TRAP,
    language: Language = "ja",
    *,
    kind: str | None = None,
    age_us: int = 0,
    late: bool = False,
    count: int = 1,
    rule: str = "r",
    more: dict[str, Any] | None = None,
    **facts: Any,
) -> Words:
    alert = Alert(
        "a", rule, kind or deployment.kind, "critical", deployment.node, deployment.device, "o", "firing",
        NOW_US - age_us, late, summary, json.dumps(facts), count,
    )  # fmt: skip
    return alert_words(alert, deployment, ZONE, NOW_US, language, more)


def subject(kind: str, name: str) -> Deployment:
    """What has no deployment: a person's tag, an area, a part of the gateway."""
    return UNDEPLOYED.of(kind, name)


# --- Traps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "title", "body"),
    [
        ("ja", "【わな作動】北尾根 3番", "6月3日 午前6時12分。写真1枚。まだ誰も向かっていません。"),
        ("ja-easy", "【わなが 動（うご）きました】北尾根 3番",
         ("6月（がつ）3日（みっか） 午前（ごぜん） 6時（じ）12分（ふん）。写真（しゃしん）が 1枚（まい） あります。"
          "まだ 誰（だれ）も 行（い）っていません。")),
        ("en", "Trap sprung: 北尾根 3番", "6:12 am, 3 June. 1 picture. Nobody is on the way yet."),
    ],
)  # fmt: skip
def test_a_trap_that_sprang(language: Language, title: str, body: str) -> None:
    said = told("trap_sprung", language=language, media="a" * 64)
    assert (said.title, said.body) == (title, body)


def test_a_voice_says_it_in_whole_sentences() -> None:
    assert told("trap_sprung").spoken == "北尾根、3番のわなが動きました。"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"likely": "capture"}, "獲物がかかった可能性があります。"),
        ({"likely": "empty"}, "何もかかっていない可能性があります。"),
        ({"reset_us": NOW_US}, "スイッチは元に戻りました。見回りの記録はまだありません。"),
        ({"silent_since_us": NOW_US}, "そのあと通信できません。今の様子は分かりません。"),
        ({}, ""),
    ],
)
def test_how_sure_it_is_changes_the_wording_only(facts: dict[str, Any], sentence: str) -> None:
    said = told("trap_sprung", **facts)
    assert said.title == "【わな作動】北尾根 3番"
    assert said.body == f"6月3日 午前6時12分。{sentence}まだ誰も向かっていません。"


def test_sprung_and_silent_says_both() -> None:
    said = told("trap_sprung", language="en", likely="capture", silent_since_us=NOW_US, reset_us=NOW_US)
    assert said.body == (
        "6:12 am, 3 June. An animal may be caught. Its switch is back. No visit has been recorded yet. "
        "It has been silent since. How it is now is not known. Nobody is on the way yet."
    )


def test_a_late_message_says_how_late_it_is() -> None:
    said = told("trap_sprung", age_us=45 * MINUTE_US, late=True)
    assert said.body == "6月3日 午前5時27分（45分遅れて届いた知らせです）。まだ誰も向かっていません。"


def test_a_shaken_trap_is_not_said_to_have_sprung() -> None:
    for said in (told("trap_moved"), told("trap_sprung", likely="moved")):
        assert said.title == "【わなの揺れ】北尾根 3番"
        assert "作動したかどうかは分かりません。" in said.body


def test_a_silent_trap_says_what_its_silence_means() -> None:
    assert told("no heartbeat", age_us=27 * HOUR_US).body == (
        "わなと27時間 通信できません。作動しても知らせが届きません。見回りをお願いします。"
    )


def test_an_overdue_visit_blames_nobody_and_says_that_sensors_do_not_count() -> None:
    said = told("round overdue", day_us=NOW_US, where="北尾根 3番, 4番")
    assert said.title == "【見回り】北尾根 3番, 4番"
    assert said.body.startswith("6月3日の見回りの記録がまだありません。センサーの知らせは見回りの代わりになりません。")


def test_a_dossier_names_what_is_missing() -> None:
    assert "まだ足りないものがあります：体重、尾の写真。" in told("dossier incomplete", missing=["weight_kg", "tail"]).body
    assert (
        "Still missing: weight, photo of the tail."
        in told("dossier incomplete", language="en", missing=["weight_kg", "tail"]).body
    )


# --- Cameras ----------------------------------------------------------------------------------------


def test_an_animal_is_said_to_look_like_one() -> None:
    said = told("detection", CAMERA, content="animal", species="boar", pictures=3, media="a" * 64, dangerous=False)
    assert (said.title, said.body) == ("【カメラ】沢口", "6月3日 午前6時12分。イノシシらしいものが写りました。写真3枚。")


def test_a_species_without_a_name_is_an_animal() -> None:
    assert "動物らしいものが写りました。" in told("detection", CAMERA, content="animal", species="wolverine").body


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    assert "何かは分かりません。" in told("detection", CAMERA, content="unsure", species=None).body


def test_a_bear_says_what_to_do_and_promises_nothing() -> None:
    said = told("detection", CAMERA, content="animal", species="bear", dangerous=True)
    assert said.title == "【クマに注意】沢口"
    assert "近づかないでください。外にいる人は、建物か車の中に入ってください。危険なときは110番へ。" in said.body
    assert "近づかないでください。" in said.spoken
    assert "安全です" not in said.body


def test_the_same_at_the_same_place_is_counted() -> None:
    assert "同じ場所でほかに4回ありました。" in told("detection", CAMERA, content="animal", species="boar", count=5).body


# --- Watch tags -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "body"),
    [
        ("ja", "午前6時12分 はなさんのタグがご自宅を離れた可能性があります。"),
        ("ja-easy", ("午前（ごぜん） 6時（じ）12分（ふん） はなさんの タグが 家（いえ）を 出（で）たかもしれません。"
                     "確認（かくにん）してください。")),
        ("en", "6:12 am: はなさん's tag may have left home."),
    ],
)  # fmt: skip
def test_leaving_home_speaks_of_the_tag_and_only_as_possible(language: Language, body: str) -> None:
    said = told("left_home", subject("watched", "0" * 16), language, kind="watched", more={"name": "はなさん"})
    assert said.body == body


def test_a_title_on_a_locked_screen_names_nobody_who_left_home() -> None:
    said = told("left_home", subject("watched", "0" * 16), kind="watched", more={"name": "はなさん"})
    assert said.title == "【外出のお知らせ】"


def test_who_may_not_know_the_name_reads_of_a_tag() -> None:
    said = told("left_home", subject("watched", "0" * 16), kind="watched")
    assert said.body == "午前6時12分 見守りタグがご自宅を離れた可能性があります。"


def test_the_last_sighting_is_not_the_place_now() -> None:
    said = told("not_seen", subject("watched", "0" * 16), kind="watched", age_us=5 * HOUR_US, place="中央公民館",
                seen_us=NOW_US - 5 * HOUR_US)  # fmt: skip
    assert said.body == (
        "見守りタグを5時間 確認していません。最後の確認は中央公民館 6月3日 午前1時12分です。今の場所ではありません。"
        "受信機は動いています。"
    )


# --- People flow ------------------------------------------------------------------------------------


def test_a_crowd_with_its_density_and_advice() -> None:
    said = told("crowd", EAST, density=3.6, level=2, advice="南口へ誘導してください。", alive=1, lines=2)
    assert (said.title, said.body) == (
        "【混雑】東口",
        "6月3日 午前6時12分。1㎡あたり3.6人。南口へ誘導してください。人数計 1/2台が動いています。",
    )


def test_a_dangerous_crowd_says_so_and_what_to_do() -> None:
    said = told("crowd", EAST, density=5.8, level=3)
    assert said.title == "【危険な混雑】東口"
    assert said.body.endswith("人が押されて倒れるおそれがあります。入場を止めて、出口へ誘導してください。")


@pytest.mark.parametrize(
    ("level", "word"), [(1, "空いています"), (2, "少し混んでいます"), (3, "混んでいます"), (4, "ほぼ満員です")]
)
def test_a_shelter_in_its_four_levels(level: int, word: str) -> None:
    said = told(
        "crowd", subject("area", "gym"), kind="area", where="第一体育館", shelter=True, level=level, share=0.62, inside=124
    )
    assert said.title == f"【避難所】第一体育館：{word}"
    assert "計算では124人、定員の約62%です。" in said.body


def test_a_stuck_and_a_silent_counter_are_two_things() -> None:
    stuck, silent = told("stuck", EAST, hours=2, usual=24.3), told("no count_in", EAST, age_us=3 * HOUR_US)
    assert "2時間 誰も数えていません（いつもは1時間に約24人）" in stuck.body
    assert "3時間 通信できません。この場所の人数は分かりません。合計にも入っていません。" in silent.body


# --- The gateway itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "facts", "sentence"),
    [
        ("broker", {}, "どの機器とも通信できません。作動しても知らせが届きません。"),
        ("canary", {"at_us": NOW_US}, "午前6時12分のテストは届きましたが、返事がありません。"),
        ("canary_lost", {"at_us": NOW_US}, "本当の知らせも届かない可能性があります。"),
        ("contact", {"name": "田中", "why": "unfollowed"}, "田中さんに連絡できません（LINEの友だちから外れました）。"),
        ("dead_letters", {"n": 3}, "届けられなかった知らせが3件あります。"),
        ("line_quota", {"left": 212, "limit": 5000, "runs_out_us": NOW_US}, "LINE残り通数 212/5,000。6月3日ごろ上限に達します。"),
    ],
)
def test_what_the_gateway_says_of_itself(part: str, facts: dict[str, Any], sentence: str) -> None:
    assert sentence in told("x", subject("gateway", part), kind="gateway", age_us=5 * MINUTE_US, **facts).body


def test_a_test_asks_nobody_to_set_out() -> None:
    assert "出動の必要はありません。" in told("test_alarm", CAMERA).body


# --- Devices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("summary", "title", "sentence"),
    [
        ("battery_voltage 3.3", "【電池】東口", "電池が少なくなっています（3.3 V）。"),
        ("device_down", "【故障】東口", "機器を読み取れません。今の様子は分かりません。"),
        ("tamper_opened", "【機器に異常】東口", "機器のふたが開いたか、線が切れました。"),
        ("button_pressed", "【ボタン】東口", "見守りタグのボタンが押されました。まだ誰も確認していません。"),
        ("count_in +60 / 60 s", "【人の流れ】東口", "人が多くなっています。"),
        ("media_captured", "【撮影】東口", "カメラが写真を撮りました。"),
        ("cpu_load 9", "【お知らせ】東口", "cpu_load 9"),
    ],
)
def test_a_device_is_called_by_its_place_and_not_by_its_metrics(summary: str, title: str, sentence: str) -> None:
    said = told(summary, EAST)
    assert said.title == title
    assert said.body.startswith(f"6月3日 午前6時12分。{sentence}")


def test_a_node_that_is_silent_says_since_when() -> None:
    node = Deployment(node="kitayama-03", device="node", kind="node", place="北山", label="")
    assert told("no heartbeat", node, age_us=3 * HOUR_US).body == (
        "親機と3時間 通信できません（最後の通信 6月3日 午前3時12分）。つながっている機器の今の様子は分かりません。"
    )


def test_a_device_that_nobody_deployed_is_called_by_its_technical_name() -> None:
    assert "kitayama-03 trap-11" in told("trap_sprung", UNDEPLOYED.of("kitayama-03", "trap-11"), kind="trap").title


# --- Whatever comes ---------------------------------------------------------------------------------


def test_a_missing_fact_costs_the_sentence_and_not_the_message(caplog: pytest.LogCaptureFixture) -> None:
    said = told("crowd", EAST, level=2, rule="crowded")  # how dense, nobody said
    assert said == Words("【お知らせ】東口", "6月3日 午前6時12分。crowd", "")
    assert "density is missing" in caplog.text


def test_a_rule_may_name_the_moment_itself() -> None:
    assert told("whatever", moment="alert.clock").title == "【時計】北尾根 3番"
    assert told("whatever", moment="no.such").title == "【お知らせ】北尾根 3番"


FACTS = st.dictionaries(
    st.sampled_from(["likely", "species", "level", "density", "share", "moment", "missing", "why", "hours", "usual", "n", "place",
                     "seen_us", "flapping", "shelter", "lines", "alive", "media", "name", "advice", "where"]),
    st.none() | st.booleans() | st.integers(0, 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
    | st.lists(st.text(max_size=5), max_size=3),
)  # fmt: skip


@given(
    summary=st.sampled_from(["trap_sprung", "detection", "crowd", "stuck", "left_home", "no heartbeat", "round", "dossier", ""]),
    kind=st.sampled_from(["trap", "camera", "watched", "area", "gateway", "flow", "node"]),
    facts=FACTS,
    language=st.sampled_from(LANGUAGES),
)
def test_whatever_a_rule_says_somebody_is_told_something(
    summary: str, kind: str, facts: dict[str, Any], language: Language
) -> None:
    said = told(summary, TRAP, language, kind=kind, **facts)
    assert said.title
    assert said.body
