"""How much of the gateway one node may take: nobody waits for another one's flood, and an honest backlog passes at once."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.topics import Channel, Topic, topic_for
from gateway.pipeline import Message
from gateway.shares import QUEUE_BYTES, QUIET_US, TURN, ShareConfig, Shares, cost_of
from tests.gateway.town import NODE, NOW_US, SECOND_US, event, reading

OTHER = "minamisawa"
FULL = b"[" * 500 + bytes(15_000)  # as heavy as 500 readings


def said(node: str, payload: bytes = b"[]", channel: Channel = Channel.LIVE) -> Message:
    return Message(topic_for(Topic(node, channel)), payload)


def drained(shares: Shares, first: list[Message], now_us: int = NOW_US) -> list[list[Message]]:
    """What each turn takes until nothing waits, without time passing."""
    groups = [shares.take(first, now_us)]
    while shares.due_s(now_us) == 0:
        groups.append(shares.take([], now_us))
    return groups


def test_a_message_of_another_never_waits_for_a_flood() -> None:
    shares = Shares(ShareConfig())
    flood = [said(NODE, FULL) for _ in range(100)]
    group = shares.take([*flood, said(OTHER)], NOW_US)
    assert said(OTHER) in group
    assert sum(cost_of(message.payload) for message in group if NODE in message.topic) <= TURN


def test_what_waits_is_taken_in_its_order_and_once() -> None:
    numbered = [said(NODE, b"[" * 900 + b"%d" % number) for number in range(20)]
    assert [message for group in drained(Shares(ShareConfig()), numbered) for message in group] == numbered


def test_what_is_live_overtakes_what_waits_of_the_backlog() -> None:
    shares = Shares(ShareConfig())
    shares.take([said(NODE, FULL, Channel.BACKLOG) for _ in range(50)], NOW_US)
    alarm = said(NODE, b"an alarm")
    assert shares.take([alarm], NOW_US).count(alarm) + shares.take([], NOW_US).count(alarm) == 1


def test_a_week_without_a_link_is_within_a_nodes_budget() -> None:
    """36,000 readings a day in full batches, and a hundred alarms: at once, and none is left unread."""
    unread: list[str] = []
    shares = Shares(ShareConfig(), lambda node, *_: unread.append(node))
    batch = b"".join(b'[%d,0,"t","temperature",1.5],' % seq for seq in range(500))
    for _ in range(7 * 36_000 // 500):
        taken = drained(shares, [said(NODE, batch, Channel.BACKLOG)])
        assert sum(map(len, taken)) == 1
    assert drained(shares, [said(NODE, str(event(1)).encode()) for _ in range(100)])
    assert unread == []


def test_a_node_beyond_its_budget_is_left_unread_and_let_in_as_it_refills(caplog: pytest.LogCaptureFixture) -> None:
    unread: list[str] = []
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=100), lambda node, *_: unread.append(node))
    taken, now_us = 0, NOW_US
    for _ in range(600):
        now_us += SECOND_US
        taken += sum(cost_of(m.payload) for m in shares.take([said(NODE, FULL) for _ in range(20)], now_us) if NODE in m.topic)
        shares.tick(now_us)
    assert 60_000 <= taken <= 10_000 + 600 * 100 + cost_of(FULL)
    assert set(unread) == {NODE}
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "said once"
    for _ in range(2 * QUIET_US // SECOND_US):
        now_us += SECOND_US
        shares.tick(now_us)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING], "and once when it is over"


def test_what_a_node_says_of_itself_is_not_left_unread_and_only_its_newest_waits() -> None:
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=100))
    shares.take([said(NODE, FULL) for _ in range(1000)], NOW_US)
    while shares.due_s(NOW_US) == 0:
        shares.take([], NOW_US)
    births = [said(NODE, b"{%d" % number, Channel.BIRTH) for number in range(1000)]
    assert not set(shares.take(births, NOW_US)) & set(births)
    later = shares.take([], NOW_US + 600 * SECOND_US)
    assert [message for message in later if message in births] == births[-1:]


def test_a_flood_holds_no_more_than_its_queue_in_memory() -> None:
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=1))
    for _ in range(50):
        shares.take([said(NODE, bytes(60_000)) for _ in range(100)], NOW_US)
    held = sum(len(m.payload) for share in shares._waiting.values() for m in (*(share.live or ()), *(share.backlog or ())))
    assert 0 < held <= QUEUE_BYTES


def test_names_without_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.shares._REMEMBERED", 100)
    shares = Shares(ShareConfig())
    for number in range(1000):
        shares.take([said(f"n-{number}")], NOW_US)
    shares.tick(NOW_US + 3600 * SECOND_US)
    assert len(shares._whole_us) <= 100


def test_whoever_has_not_all_of_its_budget_or_waits_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.shares._REMEMBERED", 10)
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=100))
    while shares.take([said(NODE, FULL)], NOW_US):
        pass
    assert shares.due_s(NOW_US)
    for now_us in range(NOW_US, NOW_US + 2 * SECOND_US, SECOND_US // 25):
        shares.take([said(f"n-{now_us}-{number}") for number in range(20)], now_us)
        shares.tick(now_us)
        assert shares.take([said(NODE, FULL)], now_us) == []
    assert len(shares._whole_us) < 50


def test_a_clock_that_is_set_back_gives_nothing_and_nobody_waits_for_the_old_time() -> None:
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=100))
    while shares.take([said(NODE, FULL)], NOW_US):
        pass
    due_s = shares.due_s(NOW_US)
    assert due_s
    back_us = NOW_US - 3600 * SECOND_US
    assert shares.due_s(back_us) == pytest.approx(due_s)
    assert shares.take([], back_us) == []
    shares.tick(back_us)
    assert shares.take([], back_us + int(due_s * SECOND_US) + 1) == [said(NODE, FULL)]


def test_what_a_message_cost_beyond_what_it_showed_is_of_its_nodes_budget() -> None:
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=100))
    shares.take([said(NODE), said(OTHER)], NOW_US)
    shares.charge(NODE, 11_000)
    assert shares.take([said(NODE), said(OTHER)], NOW_US) == [said(OTHER)]
    assert shares.due_s(NOW_US) == pytest.approx((11_000 + cost_of(b"[]") - 10_000) / 100)


def test_who_was_left_unread_keeps_within_its_share_again_though_nothing_else_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.shares._REMEMBERED", 0)
    shares = Shares(ShareConfig(burst=10_000, readings_per_s=1e6))
    shares.take([said(NODE, bytes(60_000)) for _ in range(200)], NOW_US)
    for second in range(1, 10):
        while shares.take([], NOW_US + second * SECOND_US):
            pass
    shares.tick(NOW_US + 10 * SECOND_US)
    assert not shares._whole_us
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    shares.tick(NOW_US + QUIET_US)
    shares.tick(NOW_US + 2 * QUIET_US)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


def test_nothing_a_text_holds_makes_its_records_cheaper_than_they_are() -> None:
    """Names and values can be escaped in JSON, brackets can't."""
    assert cost_of(b'{"\\u0073eq":1}') == cost_of(b'{"seq":1}') + len(rb"u0073") // 200
    assert cost_of(b"[" + b",".join(str(reading(seq)).encode() for seq in range(500)) + b"]") >= 500


@given(st.lists(st.tuples(st.sampled_from([NODE, OTHER, "c"]), st.sampled_from([*Channel]), st.integers(0, 30_000)), max_size=40),
       st.integers(10_000, 50_000), st.lists(st.integers(-5, 60), max_size=5))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whatever_comes_each_message_is_taken_once_or_left_unread_or_followed_by_a_newer_one(
    sent: list[tuple[str, Channel, int]], burst: int, steps: list[int]
) -> None:
    unread: list[str] = []
    shares = Shares(ShareConfig(burst=burst), lambda node, *_: unread.append(node))
    of_itself = (Channel.BIRTH, Channel.STATE, Channel.REPORTED)
    messages = [
        Message(
            topic_for(Topic(node, channel, "x" if channel in (Channel.COMMAND, Channel.RESULT) else None)),
            b"%d" % n + b"[" * size,
        )
        for n, (node, channel, size) in enumerate(sent)
    ]
    now_us = NOW_US
    taken = shares.take(messages, now_us)
    for step in [*steps, *[10_000] * 10]:
        now_us += step * SECOND_US
        while shares.due_s(now_us) == 0:
            taken += shares.take([], now_us)
    assert len(taken) == len(set(taken))
    left = [message for message in messages if message not in taken]
    kept = [message for message in left if not message.topic.endswith(tuple(f"/{channel}" for channel in of_itself))]
    assert len(kept) == len(unread)
    for message in left:
        if message not in kept:
            assert any(one.topic == message.topic for one in taken)
