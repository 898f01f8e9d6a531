"""霧沢町 as its gateway is told: rules, areas, people, routes; then what its desk enters: who is watched over, who may come in.

Data, and a desk's acts over the API. Nothing of how it is played. Times are short: a second on the desk is a minute there.
"""

import time
import uuid
from typing import Any

from gateway.store import SqliteStore, SqliteStoreConfig
from simulators.phones import Someone
from simulators.town import Town
from simulators.world import DAY_US, JST_US, MINUTE_US

FARMERS, HUNTERS, OFFICE, FAMILY, VOLUNTEERS = "farmers-kitayama", "hunters", "office", "family-hana", "volunteers"
OFFICER, FARMER, FAMILY_MEMBER, INSTALLER = "役場の係", "田中", "マリア", "渡辺"

EVERYBODY = (
    Someone(FARMER, (FARMERS,)),
    Someone("佐藤", (FARMERS,), ("mail",)),
    Someone("鈴木", (HUNTERS,)),
    Someone("山田", (HUNTERS,), ("voice",)),
    Someone(FAMILY_MEMBER, (FAMILY,), language="ja-easy"),
    Someone("中村", (VOLUNTEERS,)),
    Someone(OFFICER, (OFFICE,)),
)

KEEPERS = {"trap": (FARMERS, HUNTERS)}
"""Whose devices of this kind are: they see them on their page."""

RULES: dict[str, dict[str, Any]] = {
    "trap-sprung": {"type": "trap", "severity": "critical"},
    "camera": {"type": "detection", "gap": "3s", "quiet_for": "60s"},
    # All day but for a minute: the town's night passes at any hour of the desk's.
    "night-exit": {"type": "presence", "when": "left_home_at_night", "night_from": "00:00", "night_to": "23:59",
                   "severity": "critical"},
    "crowded": {"type": "crowd", "calm": "20s"},
    "filling": {"type": "rate", "metric": "count_in", "per": "60s", "window": "10s", "above": 600, "severity": "info"},
    "silent": {"type": "absence", "of": "heartbeat", "for": "20s", "kind": "node", "severity": "warning"},
    "trial": {"type": "trial", "kind": "trap"},
}  # fmt: skip

AREAS: dict[str, dict[str, Any]] = {
    "hiroba": {"label": "朝市広場", "m2": 500, "advice": "南口へ誘導してください。",
               "line": [{"node": "hiroba", "device": "counter-east", "label": "東口"},
                        {"node": "hiroba", "device": "counter-south", "label": "南口"}]},
    "kominkan": {"label": "中央公民館", "m2": 300, "capacity": 120, "shelter": True,
                 "line": [{"node": "kominkan", "device": "counter", "label": "玄関"}]},
}  # fmt: skip

SECTIONS: dict[str, Any] = {
    "people": {"town": "霧沢町", "office": OFFICE, "office_phone": "050-0000-0001"},
    "group": {
        FARMERS: {"label": "北山のわな番", "role": "farmer"},
        HUNTERS: {"label": "猟友会", "role": "hunter"},
        OFFICE: {"label": "農林課"},
        FAMILY: {"label": "ハナさんの家族", "language": "ja-easy", "role": "family"},
        VOLUNTEERS: {"label": "見守りの協力者", "role": "volunteer"},
    },
    "route": [
        {"name": "traps", "match": {"kind": "trap"}, "needed": 2, "result_within": "30s", "tell_end": True,
         "steps": [{"to": ["phone", FARMERS]}, {"to": [HUNTERS], "after": "5s"}, {"to": [OFFICE], "after": "12s"}]},
        {"name": "homes", "match": {"kind": "watched"}, "needed": 1, "result_within": "30s",
         "steps": [{"to": ["phone", "family"]}, {"to": [OFFICE], "after": "10s"}]},
        {"name": "areas", "match": {"kind": "area"}, "to": ["phone", OFFICE]},
        {"name": "tests", "match": {"kind": "test"}, "to": ["phone", FARMERS]},
        {"name": "gateway", "match": {"kind": "gateway"}, "to": [OFFICE]},
        {"name": "rest", "to": ["phone"]},
    ],
    "area": AREAS,
    "search": {"volunteers": VOLUNTEERS, "count_after": "5s", "sightings_every": "10s"},
}  # fmt: skip

_WATCHED = (("ハナ", FAMILY), ("トメ", "family-tome"), ("シゲ", "family-shige"), ("キヨ", "family-kiyo"))
"""Who carries a tag, in the order of the world's residents, and who is told of them."""


DAYS_BEFORE = 8
_EVERY_US = 10 * MINUTE_US


def remember(town: Town, now_us: int) -> None:
    """Eight days of counts, as if the counters had stood there until midnight: a chart of nothing shows nothing."""
    today_us = now_us - (now_us + JST_US) % DAY_US
    store = SqliteStore(SqliteStoreConfig(type="sqlite", path=town.series_db))
    try:
        for edge in town.edges:
            for device in edge.node.devices:
                if device.kind == "people_counter":
                    counted = [
                        (at_us, town.world.counter_totals(edge.node.name, device.name, at_us))
                        for at_us in range(today_us - DAYS_BEFORE * DAY_US, today_us + 1, _EVERY_US)
                    ]
                    store.write([
                        ((edge.node.name, device.name, metric), at_us // 1000, float(totals[which]))
                        for at_us, totals in counted for which, metric in enumerate(("count_in", "count_out"))
                    ])  # fmt: skip
    finally:
        store.close()


def enter(town: Town) -> dict[str, str]:
    """What the desk enters when everybody has joined: the watched with their consent, accounts, a job. Accounts by name."""
    for (name, family), (tag, home) in zip(_WATCHED, town.world.residents(), strict=True):
        consent = {"basis": "self", "given_by": name}
        person = {"name": f"{name}さん", "family": family, "homes": [f"{home}/tags"], "consent": consent}
        entered = town.post("/watched", person)
        town.put(f"/watched/{entered['id']}/tags/{tag.name}")
    contacts = {one["name"]: one["id"] for one in town.get("/api/v1/contacts")["contacts"]}
    accounts = {
        name: town.post("/accounts", {"name": name, "roles": roles, "contact": contacts.get(name)})["id"]
        for name, roles in ((OFFICER, ["officer", "operator"]), (FARMER, []), (FAMILY_MEMBER, []), (INSTALLER, ["installer"]))
    }
    until_us = time.time_ns() // 1000 + 86_400_000_000
    job = {"account": accounts[INSTALLER], "label": "北尾根 3基の付け替え", "nodes": ["kitaone"], "until_us": until_us}
    town.post("/jobs", job)
    return accounts


def make_the_round(town: Town) -> list[str]:
    """Somebody visits every trap of which an alert goes on; the places they were at. Only a visit ends such an alert."""
    sprung = town.get("/api/v1/alerts?state=firing&state=acknowledged&limit=1000")["alerts"]
    visited = []
    for alert in sprung:
        if alert["rule"] == "trap-sprung":
            visit = {
                "id": str(uuid.uuid4()),
                "node": alert["node"],
                "device": alert["device"],
                "who": FARMER,
                "result": "capture",
            }
            town.post("/visits", visit)
            visited.append(f"{alert['place']} {alert['label']}")
    return visited
