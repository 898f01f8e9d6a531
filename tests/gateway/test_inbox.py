"""The inbox, and the conversation on LINE: what people write or press is worked on once, and answered with what is so now."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, func, insert, select, update

from gateway.contacts import people
from gateway.contacts.away import until
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.contacts.join import ALPHABET, BURST, Joining
from gateway.contacts.proof import Proof
from gateway.inbox import KEPT_US, TRIES, Arrival, Came, Inbox
from gateway.notify.line import postback
from gateway.notify.message import Answer, Link, Message
from gateway.notify.outcome import Delivered
from gateway.paging import Answered, NotTaken, Standing
from gateway.state import State, open_state
from gateway.state.tables import addresses, contacts, inbox, notifications, pages
from gateway.talk import LineTalk
from gateway.telemetry import Telemetry
from gateway.words import text, words
from simulators.line import LinePlatform, user_id

NOW_US = 1_780_434_720_000_000  # 3 June 2026, 06:12 in Japan
SECOND_US, DAY_US = 1_000_000, 86_400_000_000
TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


# ---- the inbox ------------------------------------------------------------------------------------------


class Works:
    """A worker that fails as often as it is told to."""

    def __init__(self, fails: int = 0) -> None:
        self.fails, self.did, self.secret = fails, list[str](), "somebody's words"

    def __call__(self, connection: Connection, came: Came, now_us: int) -> None:
        connection.execute(insert(contacts).values(id=came.id, name=str(now_us), created_us=0, created_by="test"))
        if self.fails:
            self.fails -= 1
            raise ValueError(self.secret)
        self.did.append(came.id)


def row_of(state: State, id_: str) -> Any:
    with state.read() as connection:
        return connection.execute(select(inbox).where(inbox.c.id == id_)).one()


def kept(state: State, worker: Works, *ids: str) -> Inbox:
    made = Inbox(state, {"line": worker}, Telemetry())
    made.keep("line", [Arrival(id_, {"text": "ひみつ"}, NOW_US) for id_ in ids], NOW_US)
    return made


def test_work_is_done_once_in_the_order_in_which_it_came_and_what_was_written_is_forgotten(state: State) -> None:
    worker = Works()
    box = kept(state, worker, "1", "2")
    box.keep("line", [Arrival("1", {}, NOW_US)], NOW_US)
    assert (box.step(NOW_US), box.step(NOW_US)) == (2, 0)
    assert worker.did == ["line:1", "line:2"]
    assert (row_of(state, "line:1").done_us, row_of(state, "line:1").body) == (NOW_US, "{}")


def test_what_fails_leaves_nothing_behind_and_is_tried_again(state: State, caplog: pytest.LogCaptureFixture) -> None:
    worker = Works(fails=1)
    box = kept(state, worker, "1")
    assert box.step(NOW_US) == 0
    with state.read() as connection:
        assert connection.scalar(select(func.count()).select_from(contacts)) == 0
    assert box.step(NOW_US + SECOND_US) == 0  # not at once
    assert box.step(NOW_US + 2 * SECOND_US) == 1
    assert "somebody's words" not in caplog.text


def test_what_fails_again_and_again_is_given_up_visibly_and_stops_nothing_else(state: State) -> None:
    worker = Works(fails=TRIES)
    box = kept(state, worker, "1")
    for minute in range(TRIES + 2):
        box.step(NOW_US + minute * 60 * SECOND_US)
    row = row_of(state, "line:1")
    assert row.done_us is not None
    assert row.error == f"ValueError, {TRIES} times"
    box.keep("line", [Arrival("2", {}, NOW_US)], NOW_US)
    assert box.step(NOW_US) == 1


def test_a_restart_goes_on_where_it_was(state: State) -> None:
    kept(state, Works(), "1")
    worker = Works()
    assert Inbox(state, {"line": worker}, Telemetry()).step(NOW_US) == 1


def test_ids_are_forgotten_only_when_a_replay_would_be_too_old_to_be_taken(state: State) -> None:
    worker = Works()
    box = kept(state, worker, "1")
    box.step(NOW_US)
    later = NOW_US + KEPT_US + DAY_US
    box.step(later)
    box.keep("line", [Arrival("1", {}, NOW_US)], later)
    assert box.step(later) == 0
    assert worker.did == ["line:1"]


def test_what_nobody_works_on_any_more_is_forgotten_too(state: State) -> None:
    kept(state, Works(), "1")
    without_line = Inbox(state, {}, Telemetry())
    without_line.step(NOW_US + KEPT_US)
    assert row_of(state, "line:1") is not None
    without_line.step(NOW_US + KEPT_US + DAY_US)
    with state.read() as connection:
        assert connection.execute(select(inbox)).all() == []


# ---- the conversation -----------------------------------------------------------------------------------


class Town:
    """The inbox with the real contacts behind it, and a LINE; only the clock and the paging are the test's."""

    def __init__(self, state: State) -> None:
        self.state, self.now_us = state, NOW_US
        group = GroupConfig(label="北山のわな番")
        config = PeopleConfig.model_validate({"public_url": "https://gateway.example.jp", "folder": "/none", "office": "office"})
        groups = {"kitayama": group, "office": GroupConfig(label="市役所")}
        self.book = Book(groups, (), TOKYO)
        self.joining = Joining(groups, config, Proof(state, self.book, config, TOKYO))
        self.taken: list[tuple[str, Answer]] = []
        self.result: Answered | NotTaken = Answered("going", False, Standing("p-1", "trap", "asking", ("田中",), 1))
        self.strangers: list[Message] = []
        self.without: set[str] = set()
        """Contacts who have nothing to sign in for."""
        talk = LineTalk(
            self.book, self.joining, self.answer_to, TOKYO, self.reply, office="office",
            help_links=lambda contact, _language, _now_us: [Link(label="市役所に電話する", url=f"tel:05000000{len(contact):03}")],
            login_link=lambda _connection, contact, _now_us: None if contact in self.without else f"https://x.jp/{contact}",
        )  # fmt: skip
        self.inbox = Inbox(state, {"line": talk}, Telemetry())
        self.line = LinePlatform(self.take, now_us=lambda: self.now_us)
        self.arrived = 0

    def take(self, body: bytes, _headers: Any) -> int:
        events = json.loads(body)["events"]
        self.inbox.keep("line", [Arrival(e["webhookEventId"], e, e["timestamp"] * 1000) for e in events], self.now_us)
        self.inbox.step(self.now_us)
        return 200

    def reply(self, token: str, message: Message) -> Delivered:
        assert token
        self.strangers.append(message)
        return Delivered()

    def answer_to(
        self, _connection: Connection, notification: str, answer: Answer, via: str, _now_us: int
    ) -> Answered | NotTaken:
        assert via == "line"
        self.taken.append((notification, answer))
        return self.result

    def invite(self, group: str = "kitayama", name: str | None = None) -> str:
        with self.state.write() as connection:
            return self.joining.invite(connection, group, "test", self.now_us, name=name).shown

    def joins(self, user: str) -> str:
        """Somebody who is in the group and has answered their test; their contact's id."""
        self.line.write(user, f"{self.invite()} {user}")
        test = next(row for row in self.rows() if row.kind == "test" and row.address == self.address(user).id)
        self.press(user, "seen", test.id)
        return str(self.address(user).contact)

    def press(self, user: str, answer: str, notification: str) -> None:
        what = {"type": "postback", "postback": {"data": postback(answer, notification)}}
        self.line.deliver([self.line._event(user, what, replies=True)])

    def page(self, contact: str, notification: str) -> None:
        page = {"id": f"p-{notification}", "route": "r", "group_key": notification, "severity": "critical", "kind": "trap",
                "state": "asking", "needed": 2, "step": 1, "opened_us": 0, "version": 1}  # fmt: skip
        row = {"id": notification, "page": f"p-{notification}", "contact": contact, "channel": "line", "state": "sent",
               "body": "{}", "created_us": 0, "due_us": 0, "attempts": 1}  # fmt: skip
        with self.state.write() as connection:
            connection.execute(insert(pages), page)
            connection.execute(insert(notifications), row)

    def address(self, user: str) -> Any:
        with self.state.read() as connection:
            return connection.execute(select(addresses).where(addresses.c.address == user_id(user))).first()

    def rows(self) -> list[Any]:
        with self.state.read() as connection:
            return list(connection.execute(select(notifications).order_by(notifications.c.created_us)).all())

    def said(self, user: str) -> list[Message]:
        """What was queued to answer this person, in no particular order of one instant."""
        contact = self.address(user).contact
        return [Message.model_validate_json(row.body) for row in self.rows() if row.contact == contact and row.kind == "reply"]

    def last_said(self, user: str) -> Message:
        self.now_us += SECOND_US
        return self.said(user)[-1]

    def told_strangers(self) -> list[str]:
        self.inbox.close()
        return [message.body for message in self.strangers]


@pytest.fixture
def town(state: State) -> Iterator[Town]:
    made = Town(state)
    yield made
    made.inbox.close()


def ja(about: str, **facts: Any) -> str:
    return words("ja", about, zone=TOKYO, **facts).body


def test_who_adds_the_account_is_asked_for_their_code(town: Town) -> None:
    town.line.follow("田中")
    assert town.told_strangers() == [ja("contact.greeting")]


def test_a_code_joins_the_group_with_the_name_behind_it_and_a_test_follows(town: Town) -> None:
    town.line.write("田中", f"{town.invite()} 田中 太郎")
    with town.state.read() as connection:
        known = people.owner(connection, "line", user_id("田中"))
        assert known is not None
        assert (town.book.name_of(connection, known.contact), known.state) == ("田中 太郎", "new")
        assert town.book.groups_of(connection, known.contact) == ["kitayama"]
    assert town.last_said("田中").body == ja("contact.joined", group="北山のわな番")
    assert [row.kind for row in town.rows() if row.kind == "test"] == ["test"]


def test_the_answered_test_proves_the_address(town: Town) -> None:
    town.joins("田中")
    assert town.address("田中").state == "proved"
    assert town.last_said("田中").body == ja("contact.proved")


def test_a_wrong_code_is_said_to_be_wrong(town: Town) -> None:
    town.line.write("田中", "ABCD-2345")
    assert town.told_strangers() == [ja("contact.code_wrong")]


def test_who_tries_codes_is_stopped(town: Town) -> None:
    for number in range(25):
        town.line.write("田中", f"ABCD-234{ALPHABET[number]}")
    assert town.told_strangers().count(ja("contact.code_wrong")) == BURST
    assert ja("contact.too_many") in town.told_strangers()


def test_a_stranger_is_told_how_to_join_and_never_by_a_push(town: Town) -> None:
    town.line.write("田中", "こんにちは")
    assert town.rows() == []
    assert town.told_strangers() == [ja("contact.help_stranger")]


def test_an_answer_to_a_page_is_taken_and_answered_with_what_is_so_now(town: Town) -> None:
    contact = town.joins("田中")
    town.page(contact, "n-1")
    town.now_us += SECOND_US
    town.press("田中", "going", "n-1")
    assert town.taken == [("n-1", "going")]
    said = town.last_said("田中").body.split("\n")
    assert said[0] == text("ja", "answered.going.trap")
    assert said[1:] == ["田中さんが行きます。", "あと1人必要です。"]


def test_the_answer_is_a_reply_within_a_minute(town: Town) -> None:
    contact = town.joins("田中")
    town.page(contact, "n-1")
    town.now_us += SECOND_US
    pressed_us = town.now_us
    town.press("田中", "going", "n-1")
    data = town.last_said("田中").data
    assert isinstance(data["reply_token"], str)
    assert data["reply_until_us"] == pressed_us + 50 * SECOND_US


def test_why_an_answer_was_not_taken_is_said(town: Town) -> None:
    contact = town.joins("田中")
    town.page(contact, "n-1")
    town.result = NotTaken("closed")
    town.now_us += SECOND_US
    town.press("田中", "going", "n-1")
    assert town.last_said("田中").body == text("ja", "not_taken.closed")


def test_nobody_answers_for_somebody_else(town: Town) -> None:
    town.page(town.joins("田中"), "n-1")
    town.joins("鈴木")
    town.now_us += SECOND_US
    town.press("鈴木", "going", "n-1")
    assert town.taken == []
    assert town.last_said("鈴木").body == text("ja", "not_taken.not_told")


def test_a_press_that_comes_again_is_worked_on_once(town: Town) -> None:
    town.page(town.joins("田中"), "n-1")
    event = town.line._event("田中", {"type": "postback", "postback": {"data": postback("going", "n-1")}}, replies=True)
    for _ in range(3):
        town.line.deliver([event])
    assert town.taken == [("n-1", "going")]


@pytest.mark.parametrize("data", ["", "a=going", "a=rob&n=n-1", "n=x&a=going", "n=%00&a=going", "&&&&&", "\ud800"])
def test_a_button_that_is_none_of_ours_is_harmless(town: Town, data: str) -> None:
    town.joins("田中")
    town.now_us += SECOND_US
    town.line.write("田中", "x")
    event = town.line._event("田中", {"type": "postback", "postback": {"data": data}}, replies=True)
    town.inbox.keep("line", [Arrival(uuid.uuid4().hex, event, town.now_us)], town.now_us)
    assert town.inbox.step(town.now_us) == 1
    assert town.taken == []


# ---- away and back --------------------------------------------------------------------------------------


def test_who_goes_away_is_asked_until_when_and_told_who_stands_in(town: Town) -> None:
    tanaka, suzuki = town.joins("田中"), town.joins("鈴木")
    with town.state.write() as connection:
        connection.execute(update(contacts).where(contacts.c.id == tanaka).values(deputy=suzuki))
    town.now_us += SECOND_US
    town.line.write("田中", "留守にします。")
    asked = town.last_said("田中")
    assert asked.body == ja("contact.away_ask")
    assert asked.data["quick"] == [["今日", "留守 今日"], ["明日", "留守 明日"], ["1週間", "留守 1週間"]]
    town.line.write("田中", "明日")
    until_us = NOW_US - (6 * 3600 + 12 * 60) * SECOND_US + 2 * DAY_US  # the end of tomorrow
    assert town.last_said("田中").body == ja("contact.away", until=until_us, deputy=["鈴木"])
    told = [Message.model_validate_json(row.body) for row in town.rows() if row.contact == suzuki and row.kind == "update"]
    assert [message.body for message in told] == [ja("contact.deputy", until=until_us, name=["田中"])]


def test_the_quick_answer_says_all_at_once_so_a_restart_in_between_changes_nothing(town: Town) -> None:
    contact = town.joins("田中")
    town.now_us += SECOND_US
    town.line.write("田中", "留守にします")
    quick: Any = town.last_said("田中").data["quick"]
    label, said = quick[0]
    assert label == "今日"
    talk = LineTalk(town.book, town.joining, town.answer_to, TOKYO, town.reply)
    town.inbox = Inbox(town.state, {"line": talk}, Telemetry())
    town.line.write("田中", str(said))
    with town.state.read() as connection:
        assert connection.scalar(select(contacts.c.away_until_us).where(contacts.c.id == contact)) is not None


def test_the_help_has_a_telephone_to_press(town: Town) -> None:
    town.joins("田中")
    town.line.write("田中", "どうしたらいいですか")
    assert [link.url for link in town.last_said("田中").links] == ["tel:05000000016"]


@pytest.mark.parametrize(
    ("said", "days"),
    [("明日まで留守にします。", 2), ("今日は留守にします", 1), ("１週間留守にします", 8), ("留守にします　明日", 2)],
)
def test_it_may_be_said_in_one_breath(town: Town, said: str, days: int) -> None:
    town.joins("田中")
    town.line.write("田中", said)
    assert away_days(town) == days


@pytest.mark.parametrize("said", ["留守番をしています", "明日は行けます", "留守ではありません"])
def test_what_only_sounds_like_it_sends_nobody_away(town: Town, said: str) -> None:
    town.joins("田中")
    town.line.write("田中", said)
    assert away_days(town) is None


def test_today_of_a_message_that_comes_a_day_late_is_over(town: Town) -> None:
    town.joins("田中")
    yesterday = {"type": "message", "message": {"id": "1", "type": "text", "text": "留守にします 今日"}}
    event = town.line._event("田中", yesterday, replies=True)
    town.now_us += DAY_US
    town.line.deliver([event])
    assert away_days(town) is None


def away_days(town: Town) -> int | None:
    """Until the end of which day from today somebody is away; None: they are not."""
    with town.state.read() as connection:
        until_us = connection.scalar(select(contacts.c.away_until_us).where(contacts.c.name == "田中"))
    midnight_us = until("today", town.now_us, TOKYO) - DAY_US
    return None if until_us is None else (until_us - midnight_us) // DAY_US


def test_today_alone_means_nothing_unless_it_was_asked(town: Town) -> None:
    contact = town.joins("田中")
    town.now_us += SECOND_US
    town.line.write("田中", "今日")
    assert town.last_said("田中").body == ja("contact.help")
    with town.state.read() as connection:
        assert connection.scalar(select(contacts.c.away_until_us).where(contacts.c.id == contact)) is None


def test_without_a_deputy_the_office_hears_of_it(town: Town) -> None:
    officer = town.joins("市川")
    with town.state.write() as connection:
        people.enter(connection, officer, "office")
    town.joins("田中")
    town.now_us += SECOND_US
    town.line.write("田中", "留守にします 1週間")
    until_us = NOW_US - (6 * 3600 + 12 * 60) * SECOND_US + 8 * DAY_US
    assert town.last_said("田中").body == ja("contact.away_nobody", until=until_us)
    told = [Message.model_validate_json(row.body).body for row in town.rows() if row.contact == officer and row.kind == "update"]
    assert told == [ja("contact.away_office", until=until_us, name=["田中"])]


@pytest.mark.parametrize("said", ["戻りました", "もどりました", "戻りました！", "ただいま", "I'm back"])
def test_who_is_back_is_told_again(town: Town, said: str) -> None:
    contact = town.joins("田中")
    town.now_us += SECOND_US
    town.line.write("田中", "留守 今日")
    town.now_us += SECOND_US
    town.line.write("田中", said)
    assert town.last_said("田中").body == ja("contact.back")
    with town.state.read() as connection:
        assert connection.scalar(select(contacts.c.away_until_us).where(contacts.c.id == contact)) is None


# ---- following and blocking -----------------------------------------------------------------------------


def test_who_blocks_the_account_is_unreachable_and_who_comes_back_is_not(town: Town) -> None:
    town.joins("田中")
    town.now_us += SECOND_US
    town.line.block("田中")
    assert (town.address("田中").state, town.address("田中").why) == ("unreachable", "unfollowed")
    town.now_us += SECOND_US
    town.line.follow("田中")
    assert town.address("田中").state == "proved"


def test_an_unfollow_that_was_overtaken_by_what_they_did_since_is_not_believed(town: Town) -> None:
    town.joins("田中")
    old = town.line._event("田中", {"type": "unfollow"}, replies=False)
    town.page(town.address("田中").contact, "n-1")
    town.now_us += 10 * SECOND_US
    town.press("田中", "going", "n-1")
    town.line.deliver([old])
    assert town.address("田中").state == "proved"


def test_a_group_of_line_is_told_to_come_alone(town: Town) -> None:
    town.line.invite("C" + "0" * 32)
    assert town.told_strangers() == [ja("contact.alone_please")]


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "unsend", "source": {"type": "user", "userId": "U" + "0" * 32}},
        {"type": "message", "source": {"type": "user", "userId": "U" + "0" * 32}, "message": {"type": "sticker"}},
        {"type": "message", "source": {"type": "user"}, "message": {"type": "text", "text": "x"}},
        {"type": "message", "source": {"type": "user", "userId": "\ud800"}, "message": {"type": "text", "text": "x"}},
        {"type": "message", "source": "user", "message": None},
        {"type": "message", "source": {"type": "group", "groupId": "C1"}, "message": {"type": "text", "text": "x"}},
        {"type": "message", "mode": "standby", "source": {"type": "user", "userId": "U" + "0" * 32},
         "message": {"type": "text", "text": "x"}},
        {"type": "something new", "source": {"type": "user", "userId": "U" + "0" * 32}},
    ],
)  # fmt: skip
def test_what_asks_nothing_of_us_is_done_without_a_word(town: Town, event: dict[str, Any]) -> None:
    town.inbox.keep("line", [Arrival("1", {"replyToken": "t", **event}, town.now_us)], town.now_us)
    assert town.inbox.step(town.now_us) == 1
    assert town.rows() == []
    assert town.told_strangers() == []


def test_who_writes_login_gets_a_link_if_there_is_anything_for_them(town: Town) -> None:
    contact = town.joins("tanaka")
    for said in ("ログイン", "ろぐいん", " ﾛｸﾞｲﾝ ", "Sign in"):
        town.line.write("tanaka", said)
        message = town.last_said("tanaka")
        assert (message.title, [one.label for one in message.links]) == ("【ログイン】", ["ログインする"]), said
        assert message.links[0].url == f"https://x.jp/{contact}?openExternalBrowser=1"
    town.without.add(contact)
    town.line.write("tanaka", "ログイン")
    last = town.last_said("tanaka")
    assert (last.links, last.title) == ((), "【ログイン】")


def test_a_stranger_who_writes_login_gets_no_link(town: Town) -> None:
    town.line.write("nobody", "ログイン")
    assert town.told_strangers() == [ja("contact.help_stranger")]
    assert town.rows() == []
