"""Topics: building and reading are inverses, and nothing that is not one of ours is read as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.topics import (
    LIVE,
    ROOT,
    WITH_ID,
    Channel,
    Topic,
    named_in,
    parse,
    partition_of,
    topic_for,
    unchecked,
    up_filters,
)

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32)


@st.composite
def topics(draw: st.DrawFn) -> Topic:
    channel = draw(st.sampled_from(Channel))
    return Topic(draw(NAMES), channel, draw(NAMES) if channel in WITH_ID else None)


@given(topics())
def test_parse_gives_back_what_topic_for_was_given(topic: Topic) -> None:
    assert parse(topic_for(topic)) == topic


@given(NAMES, st.sampled_from(sorted({*Channel} - WITH_ID)))
def test_a_known_node_has_the_topics_that_topic_for_gives_it(node: str, channel: Channel) -> None:
    topic = unchecked(node, channel.value)
    assert topic == topic_for(Topic(node, channel))
    assert named_in(topic) == node or channel.value != LIVE


@pytest.mark.parametrize(("node", "partition"), [("kitayama-03", 29), ("a", 3), ("gw", 0)])
def test_a_node_is_on_the_same_partition_on_every_machine(node: str, partition: int) -> None:
    assert partition_of(node) == partition
    assert topic_for(Topic(node, Channel.LIVE)) == f"satomori/v1/{partition:02d}/{node}/up/live"


@given(NAMES)
def test_there_are_64_partitions(node: str) -> None:
    assert 0 <= partition_of(node) < 64


ODD = {
    "": "start",
    "satomori": "start",
    "satomori/v2/29/kitayama-03/up/live": "start",
    "/satomori/v1/29/kitayama-03/up/live": "start",
    "satomori/v1": "levels",
    "satomori/v1/29/kitayama-03/up": "levels",
    "satomori/v1/29/kitayama-03/up/live/a/b": "levels",
    "satomori/v1/29/Kitayama-03/up/live": "names node",
    "satomori/v1/29//up/live": "names node",
    "satomori/v1/29/kitayama-03\n/up/live": "names node",
    "satomori/v1/29/" + "a" * 33 + "/up/live": "names node",
    "satomori/v1/29/北山/up/live": "names node",
    "satomori/v1/28/kitayama-03/up/live": "node kitayama-03 belongs on 29",
    "satomori/v1/+/kitayama-03/up/live": "belongs on 29",
    "satomori/v1/3/a/up/live": "node a belongs on 03",
    "satomori/v1/29/kitayama-03/up/Live": "no channel 'up/Live'",
    "satomori/v1/29/kitayama-03/up/": "no channel",
    "satomori/v1/29/kitayama-03/up/live/": "takes no id",
    "satomori/v1/29/kitayama-03/up/live/7": "takes no id",
    "satomori/v1/29/kitayama-03/up/result": "needs id",
    "satomori/v1/29/kitayama-03/up/result/": "no command id",
    "satomori/v1/29/kitayama-03/down/command/A": "no command id",
}


@pytest.mark.parametrize(("text", "reason"), ODD.items(), ids=range(len(ODD)))
def test_an_odd_topic_is_refused_with_a_reason_that_says_what_is_odd(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


LEVEL = st.one_of(
    st.sampled_from(["satomori", "v1", "29", "kitayama-03", "up", "live", "down", "result", ""]), st.text(max_size=40)
)


@given(
    st.one_of(
        st.text(), st.lists(LEVEL, max_size=9).map("/".join), st.lists(LEVEL, max_size=5).map(lambda t: "/".join([ROOT, *t]))
    )
)
def test_every_text_is_either_a_topic_of_ours_or_refused_on_one_short_line(text: str) -> None:
    try:
        assert topic_for(parse(text)) == text
    except ValueError as error:
        reason = str(error)
    else:
        reason = "fine"
    assert 0 < len(reason) < 250
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        (Topic("Kita", Channel.LIVE), "'Kita' is no node name"),
        (Topic("a", Channel.COMMAND), "needs id"),
        (Topic("a", Channel.LIVE, "7"), "takes no id"),
        (Topic("a", Channel.COMMAND, "x/y"), "'x/y' is no command id"),
        (Topic("a", Channel.COMMAND, "#"), "'#' is no command id"),
    ],
)
def test_no_other_topic_can_be_built(topic: Topic, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        topic_for(topic)


def test_subscriptions_cover_one_partition_or_all() -> None:
    assert up_filters() == ["satomori/v1/+/+/up/#"]
    assert up_filters(3) == ["satomori/v1/03/+/up/#"]
