"""The draft of the 個人情報ファイル簿 (個人情報の保護に関する法律 第75条), from what is really configured.

It says what this gateway keeps, how long, and to whom it tells it. Whether a file must be published, and on what basis it is
used, is for the municipality to decide: what only it knows is left to fill in, as 〔…〕.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from gateway.config import GatewayConfig
from gateway.keeping.config import DAY_S

OPEN = "〔要記入〕"
"""What only the municipality knows."""


class File(NamedTuple):
    """One 個人情報ファイル."""

    name: str
    purpose: str
    items: Sequence[str]
    scope: str
    collected: str
    sensitive: str
    provided: str
    kept: Sequence[str]


def days(seconds: int) -> str:
    """`14日`; whole years as `3年`."""
    number = seconds // DAY_S
    return f"{number // 365}年" if number % 365 == 0 else f"{number}日"


def files(config: GatewayConfig) -> list[File]:
    """Those that this configuration leads to."""
    kinds = {one.kind for one in config.deployment}
    found: list[File] = []
    if config.people is not None:
        found.append(_contacts(config))
    # Tags are enrolled in the state database, not here: one file too many is struck out, one too few is not noticed.
    if config.people is not None or "tags" in kinds or any(rule.type == "presence" for rule in config.rule.values()):
        found.append(_watched(config))
    if "camera" in kinds:
        found.append(_pictures(config))
    if "trap" in kinds:
        found.append(_traps(config))
    found.append(_accounts(config))
    return found


def _contacts(config: GatewayConfig) -> File:
    groups = "、".join(group.label for group in config.group.values()) or "登録した人"
    ways = list(_ways(config))
    return File(
        "通知先ファイル",
        "わな・カメラ・見守りタグ・人流計測の知らせを担当者に届け、誰が対応するかを確認するため",
        ["氏名または呼び名", "使用する言語", "所属する班", *(name for name, _ in ways), "不在期間と代理の人", "通知の履歴と応答"],
        f"知らせを受け取るために登録した人({groups})",
        "本人の登録(招待の番号・QRコード)または本人からの申出による職員の入力",
        "含まない",
        "、".join(to for _, to in ways if to) or "なし",
        [f"通知と応答: {days(config.keep.alerts)}", "氏名・連絡先: 登録の削除まで(削除と同時に消去)"],
    )


def _ways(config: GatewayConfig) -> Iterator[tuple[str, str]]:
    channel = config.channel
    if channel.line is not None:
        yield "LINEの利用者ID", "LINEヤフー株式会社(メッセージの配信)"
    if channel.mail is not None:
        yield "電子メールアドレス", "電子メールの配信を委託する事業者"
    if channel.twilio is not None:
        yield "電話番号", "Twilio(電話・SMSの発信)"
    if channel.push is not None:
        yield "ブラウザの通知先", "ブラウザの提供者(プッシュ通知の配信)"


def _watched(config: GatewayConfig) -> File:
    keep = config.keep
    return File(
        "見守りタグ利用者ファイル",
        "見守りタグを持つ人が自宅を離れた可能性を家族に知らせ、行方が分からないときに捜索するため",
        ["呼び名", "家族の班", "自宅の受信機", "タグの識別子とラベルの番号", "受信機ごとの検知の時刻",
         "同意の記録(同意した人、続柄、日付)", "捜索の記録", "位置を閲覧した人・理由・日時"],
        "見守りタグの利用を申し込んだ人(本人または代理の人の同意がある人)",
        "本人または家族からの申出、タグの電波を受けた受信機からの自動送信",
        "含む可能性がある(認知症などの健康に関する事項を推測させる)。病名は記録しない",
        "家族、捜索中に限り協力者(最寄りの場所と時刻のみ)。" + OPEN + "(警察への提供の有無)",
        [f"検知と場所: {days(keep.sightings)}", f"同意の記録: 終了後{days(keep.consents)}", f"閲覧の記録: {days(keep.audit)}",
         "利用をやめたときは、タグの検知記録と鍵を消去"],
    )  # fmt: skip


def _pictures(config: GatewayConfig) -> File:
    keep = config.keep
    places = "、".join(sorted({one.place for one in config.deployment if one.kind == "camera"}))
    own = sorted({(one.place, one.keep_pictures) for one in config.deployment if one.keep_pictures is not None})
    return File(
        "野生動物監視カメラ画像ファイル",
        "野生動物の出没とわなの作動を確認するため。人を撮影する目的では使わない",
        ["画像(人が写り込むことがある)", "撮影の日時と場所", "写っているものの区分(動物、人または車、不明)", "確認した職員"],
        f"カメラの前を通った人({places})",
        "設置したカメラによる撮影。設置場所に掲示をする",
        "含まない",
        "なし(人が写っている可能性のある画像は担当の職員だけが開く)",
        [f"人が写っていない画像: {days(keep.pictures)}", f"人が写っている可能性のある画像: {days(keep.pictures_of_people)}",
         *(f"{place}の画像: {days(own_s)}" + ("(人が写っていないもの)" if own_s > keep.pictures_of_people else "")
           for place, own_s in own),
         "捕獲の証拠の画像: 捕獲の記録とともに保存"],
    )  # fmt: skip


def _traps(_config: GatewayConfig) -> File:
    return File(
        "わな見回り・捕獲記録ファイル",
        "わなの見回りと捕獲を記録し、捕獲の報告と報償金の事務を行うため",
        ["見回りをした人の名前", "見回りの日時と結果", "捕獲した動物の種類・性別・体重・処分", "証拠の写真"],
        "わなの見回り・捕獲に従事する人",
        "本人の入力(わなのQRコード、様式)、わなのボタン",
        "含まない",
        OPEN + "(都道府県への報告など)",
        ["保存(市町村の文書管理の定めによる)"],
    )


def _accounts(config: GatewayConfig) -> File:
    keep = config.keep
    return File(
        "利用者アカウント・操作記録ファイル",
        "システムを使う人を確かめ、誰が何を見て何をしたかを後から確認できるようにするため",
        ["名前", "役割", "パスキーの公開鍵", "ログインの日時とブラウザの種類", "操作と閲覧の記録"],
        "職員、設置業者、班の人、家族、捜索の協力者のうち、システムにログインする人",
        "本人の登録または職員の入力、システムの自動記録",
        "含まない",
        "なし",
        [f"ログインの記録: 終了後{days(keep.sessions)}", f"操作と閲覧の記録: {days(keep.audit)}"],
    )


def rows(config: GatewayConfig, file: File) -> list[tuple[str, str]]:
    """The entries of one file, in the order of the law."""
    people = config.people
    town, office = (people.town if people else "") or OPEN, people.office_name if people else OPEN
    phone = people.office_phone if people and people.office_phone else OPEN
    return [
        ("個人情報ファイルの名称", file.name),
        ("行政機関等の名称", town),
        ("個人情報ファイルが利用に供される事務をつかさどる組織の名称", f"{office} {OPEN}(担当課)"),
        ("個人情報ファイルの利用目的", file.purpose),
        ("記録項目", "、".join(f"{number} {item}" for number, item in enumerate(file.items, 1))),
        ("記録範囲", file.scope),
        ("記録情報の収集方法", file.collected),
        ("要配慮個人情報が含まれるときは、その旨", file.sensitive),
        ("記録情報の経常的提供先", file.provided),
        ("開示請求等を受理する組織の名称及び所在地", f"{office} 電話 {phone} {OPEN}(名称・所在地)"),
        ("訂正及び利用停止に関する他の法令の規定による特別の手続", OPEN + "(なければ「なし」)"),
        ("個人情報ファイルの種別", "法第60条第2項第1号(電算処理ファイル)"),
        ("行政機関等匿名加工情報の提案の募集", OPEN),
        ("保存期間(設定による)", "、".join(file.kept)),
        ("備考", "記録される人の数: " + OPEN),
    ]


_NOTE = "この下書きは satomori の設定から作られた。公表の要否、根拠、空欄は市町村で確認すること。"


def markdown(config: GatewayConfig) -> str:
    """The draft in Markdown."""
    parts = ["# 個人情報ファイル簿（下書き）", _NOTE]
    for file in files(config):
        lines = [f"| {name} | {_cell(said)} |" for name, said in rows(config, file)]
        parts.append("\n".join([f"## {file.name}", "", "| 項目 | 内容 |", "|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def _cell(said: str) -> str:
    return said.replace("|", "\\|").replace("\n", " ")


def html(config: GatewayConfig) -> str:
    """The same as a page to print."""
    parts = []
    for file in files(config):
        lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(said)}</td></tr>\n" for name, said in rows(config, file))
        parts.append(f"<h2>{escape(file.name)}</h2>\n<table>\n{lines}</table>\n")
    style = (
        "@page{size:A4;margin:18mm}body{font-family:sans-serif;line-height:1.6}table{border-collapse:collapse;width:100%;"
        "break-inside:avoid}th,td{border:1px solid #444;padding:.3em .6em;text-align:left;vertical-align:top}th{width:32%}"
    )
    title = "個人情報ファイル簿（下書き）"
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
    body = f"<body>\n<h1>{title}</h1>\n<p>{_NOTE}</p>\n{''.join(parts)}</body>"
    return f'<!doctype html>\n<html lang="ja">\n{head}\n{body}\n</html>\n'
