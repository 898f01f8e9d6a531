"""The dashboard over the gateway's own metrics, which VictoriaMetrics (or Prometheus) reads from its `/metrics`.

`up` and whatever else says whether the gateway is there at all comes first; a gateway that is not read is unknown, never well.
"""

from grafana_foundation_sdk.builders import dashboard

from dashboards.grafana.panels import (
    BAD,
    GOOD,
    NOT_KNOWN,
    WATCH,
    Look,
    Panel,
    Said,
    bars,
    board,
    columns,
    lines,
    metrics_target,
    number,
)

JOB = 'job="satomori"'
"""The job of scrape.yml."""
_YES, _NO = Said("はい", "yes"), Said("いいえ", "no")
JOIN_S = 300
DAY_S = 86_400


def operations() -> dashboard.Dashboard:
    """Does everything arrive, and is everybody told?"""
    panels: list[Panel] = [
        _small(
            Said("ゲートウェイは動いているか", "Gateway answers"),
            Said(
                "VictoriaMetricsがゲートウェイを読めたか。「不明」は、どこからも読んでいない。",
                "Whether VictoriaMetrics could read the gateway. Unknown: nobody reads it.",
            ),
            (("1", _YES, GOOD), ("0", _NO, BAD)),
            f"max(up{{{JOB}}})",
        ),
        _small(
            Said("ブローカーにつながっているか", "Broker connected"),
            Said(
                "つながっていない間、記録は端末の中で待つ。",
                "While it is not, records wait on the nodes.",
            ),
            (("1", _YES, GOOD), ("0", _NO, BAD)),
            f"min(satomori_broker_up{{{JOB}}})",
        ),
        _small(
            Said("時系列の保存先は動いているか", "Series store takes readings"),
            Said(
                "動いていない間、測定値だけが端末の中で待つ。警報は届く。",
                "While it does not, readings wait on the nodes. Alarms still ring.",
            ),
            (("0", _YES, GOOD), ("1", _NO, BAD)),
            f"max(satomori_store_down{{{JOB}}})",
        ),
        number(
            Look(
                Said("通知の遅れ", "Notifications overdue"),
                Said(
                    "送るはずの時刻を最も過ぎている通知の遅れ。増え続けるなら、通信路と宛先の設定を見る。",
                    "How long the notification that is due the longest has been. While it grows: look at the channels.",
                ),
                "s",
                ((None, NOT_KNOWN), (0, GOOD), (60, WATCH), (600, BAD)),
                width=6,
                height=5,
            )
        ).with_target(metrics_target(f"max(satomori_notifications_overdue_seconds{{{JOB}}})", "", once=True)),
        number(
            Look(
                Said("届かなかった通知", "Dead letters"),
                Said(
                    "あきらめた通知。誰にも届いていない。警報の画面に一件ずつ出ている。",
                    "Notifications given up, which reached nobody. Each is shown with its alert.",
                ),
                "suffix: 件",
                ((None, NOT_KNOWN), (0, GOOD), (1, BAD)),
                width=6,
            )
        ).with_target(metrics_target(f"max(satomori_notifications_dead{{{JOB}}})", "", once=True)),
        lines(
            Look(
                Said("保存した記録", "Records made durable"),
                Said(
                    "1秒あたり。出来事（event）と測定値（reading）。線が切れた所は不明。",
                    "Per second: events and readings. Where the line ends, nobody knows.",
                ),
                "suffix: 件/s",
                width=18,
            ),
            join_s=JOIN_S,
        ).with_target(metrics_target(f"sum by (kind) (rate(satomori_records_total{{{JOB}}}[$__rate_interval]))", "{{kind}}")),
        columns(
            Look(
                Said("受け取れなかった記録", "What did not come through"),
                Said(
                    "断った（理由は "
                    "/api/v1/quarantine）、端末が失った（/api/v1/losses）、保存期間を過ぎて届いた、の件数。0が普通。",
                    "Refused (/api/v1/quarantine says why), lost on a node (/api/v1/losses), or past its retention. None "
                    "is normal.",
                ),
                "suffix: 件",
            ),
            interval="5m",
        )
        .with_target(metrics_target(_grew("satomori_quarantined_total"), "refused"))
        .with_target(metrics_target(_grew("satomori_lost_total"), "lost", ref="B"))
        .with_target(metrics_target(_grew_if_any("satomori_too_late_total"), "too late", ref="C")),
        columns(
            Look(
                Said("送信の結果", "Attempts to deliver"),
                Said(
                    "通信路と結果ごとの件数。「delivered」以外が続く通信路を見る。",
                    "By channel and outcome. See to a channel that goes on with anything but `delivered`.",
                ),
                "suffix: 件",
            ),
            interval="5m",
        ).with_target(
            metrics_target(
                f"sum by (channel, outcome) (increase(satomori_deliveries_total{{{JOB}}}[$__interval]))",
                "{{channel}} {{outcome}}",
            )
        ),
        lines(
            Look(
                Said("受信から保存まで", "From receiving to durable"),
                Said(
                    "半数と99%のまとまりがこの時間までに保存された。保存先の速さを表す。",
                    "Half and 99 % of the groups of messages were durable within this time: how fast the disk is.",
                ),
                "s",
                ((None, NOT_KNOWN), (0, GOOD), (1, WATCH), (5, BAD)),
            ),
            join_s=JOIN_S,
        )
        .with_target(metrics_target(_within(0.5, "satomori_flush_seconds", "le"), "50 %"))
        .with_target(metrics_target(_within(0.99, "satomori_flush_seconds", "le"), "99 %", ref="B")),
        lines(
            Look(
                Said("通知から通信路まで", "From a notification to its provider"),
                Said(
                    "通信路ごとに、95%の通知がこの時間までに渡された。渡された通知を誰かが見たとは限らない。",
                    "By channel: 95 % were handed over within this time. Handed over is not seen by anybody.",
                ),
                "s",
                ((None, NOT_KNOWN), (0, GOOD), (30, WATCH), (300, BAD)),
            ),
            join_s=JOIN_S,
        ).with_target(metrics_target(_within(0.95, "satomori_delivery_seconds", "channel, le"), "{{channel}}")),
        bars(
            Look(
                Said("ディスクの残り", "Room on disks"),
                Said(
                    "書き込む場所ごとの残り。少なくなると、写真と測定値は端末で待ち、警報だけが通る。",
                    "By what is written there. When it runs out, pictures and readings wait on the nodes, and only alarms pass.",
                ),
                "bytes",
                ((None, NOT_KNOWN), (0, BAD), (2**30, WATCH), (10 * 2**30, GOOD)),
                width=8,
            )
        ).with_target(metrics_target(f"min by (of) (satomori_disk_free_bytes{{{JOB}}})", "{{of}}", once=True)),
        bars(
            Look(
                Said("証明書の残り日数", "Certificates end in"),
                Said(
                    "切れると、端末やゲートウェイがつながらなくなる。証明書を使わないゲートウェイでは「不明」。",
                    "When one ends, nodes or the gateway can't connect. Unknown where the gateway uses none.",
                ),
                "s",
                ((None, NOT_KNOWN), (-(2**31), BAD), (7 * DAY_S, WATCH), (30 * DAY_S, GOOD)),
                width=8,
            )
        ).with_target(
            metrics_target(f"min by (of) (satomori_certificate_ends_timestamp_seconds{{{JOB}}}) - time()", "{{of}}", once=True)
        ),
        bars(
            Look(
                Said("バックアップからの時間", "Since the last backup"),
                Said(
                    "最後にバックアップを取ってから（backup）と、戻せることを確かめてから（restore）。一度もないと数十年になる。",
                    "Since a backup was made, and since somebody tried whether one can be put back. Decades: never.",
                ),
                "s",
                ((None, NOT_KNOWN), (0, GOOD), (2 * DAY_S, WATCH), (90 * DAY_S, BAD)),
                width=8,
            )
        )
        .with_target(metrics_target(f"time() - max(satomori_backup_timestamp_seconds{{{JOB}}})", "backup", once=True))
        .with_target(
            metrics_target(f"time() - max(satomori_restore_tested_timestamp_seconds{{{JOB}}})", "restore", ref="B", once=True)
        ),
        number(
            Look(
                Said("判定を待つ出来事", "Events not judged"),
                Said(
                    "届いたのにまだ判定されていない、最も古い出来事の待ち時間。増え続けるなら、警報が出ない。",
                    "How long the oldest event has waited to be judged. While it grows, no alarm rings.",
                ),
                "s",
                ((None, NOT_KNOWN), (0, GOOD), (10, WATCH), (120, BAD)),
                width=6,
            )
        ).with_target(metrics_target(f"max(satomori_unjudged_oldest_seconds{{{JOB}}})", "", once=True)),
        columns(
            Look(
                Said("ゲートウェイ自身の失敗", "The gateway's own failures"),
                Said(
                    "規則と定期作業が失敗した回数。ログに最初の理由がある。0が普通。",
                    "Times a rule or a chore failed; the log has the first reason. None is normal.",
                ),
                "suffix: 回",
                width=18,
            ),
            interval="5m",
        )
        .with_target(metrics_target(_grew_if_any("satomori_rule_errors_total"), "rule"))
        .with_target(metrics_target(_grew_if_any("satomori_chore_errors_total"), "chore", ref="B")),
    ]
    return board(
        "satomori-operations",
        Said("里守り：運用", "satomori: operations"),
        Said("すべて届き、みんなに知らされているか。", "Does everything arrive, and is everybody told?"),
        panels,
        since="now-6h",
    )


def _small(title: Said, description: Said, names: tuple[tuple[str, Said, str], ...], expr: str) -> Panel:
    look = Look(title, description, "none", names=names, width=6, height=5)
    return number(look).with_target(metrics_target(expr, "", once=True))


def _grew(metric: str) -> str:
    return f"sum(increase({metric}{{{JOB}}}[$__interval]))"


def _grew_if_any(metric: str) -> str:
    """A counter with labels is not there before its first count: then it grew by nothing, if the gateway was read at all."""
    return f"{_grew(metric)} or 0 * max(satomori_messages_total{{{JOB}}})"


def _within(share: float, histogram: str, by: str) -> str:
    # Of increases, not rates: a channel's first delivery makes its series, and is no rate yet.
    return f"histogram_quantile({share}, sum by ({by}) (increase({histogram}_bucket{{{JOB}}}[$__rate_interval])))"
