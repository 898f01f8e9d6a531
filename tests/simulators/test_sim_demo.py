"""What the demo tells on a terminal of 80 columns, in words; what its people do by themselves, and when they leave it."""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from rich.cells import cell_len
from rich.console import Console

from gateway.canary import CanaryConfig
from simulators import cli, demo
from simulators.broker import nats
from simulators.demo import Habits, Narrator, SceneTime, _canary, _summary
from simulators.kirisawa import EVERYBODY, OFFICER, SECTIONS
from simulators.phone import Phone, Received
from simulators.phones import Got, Phones
from simulators.ports import free_port
from simulators.town import Town
from simulators.world import World


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tell(out: io.StringIO) -> Narrator:
    return Narrator(Console(file=out, width=80))


def test_a_long_message_of_the_phone_is_broken_beside_its_time(tell: Narrator, out: io.StringIO) -> None:
    body = "6月3日 午前6時12分。" * 8 + "[写真1枚]"
    tell.phone((Received(0, {"title": "【わな作動】北尾根 3番", "body": body, "severity": "critical"}, "", 200),))
    lines = out.getvalue().splitlines()
    assert len(lines) > 1
    assert max(map(cell_len, lines)) <= 80
    assert all(line.startswith(" " * 9) for line in lines[1:])
    assert "".join(out.getvalue().split()).endswith("".join(body.split()))


def test_an_address_is_one_line_that_can_be_copied(tell: Narrator, out: io.StringIO) -> None:
    url = "http://127.0.0.1:40000/#token=" + "a" * 60
    tell.say(f"the town's page:  {url}", whole=True)
    assert out.getvalue().endswith(f"{url}\n")


def test_the_summary_is_in_words(tell: Narrator, out: io.StringIO) -> None:
    latency = {"event_to_phone_p50": 312.5, "event_to_phone_p95": None}
    _summary(tell, {"records_lost": 0, "alerts": {"camera": 3, "trap": 2}, "latency_ms": latency})
    said = [" ".join(line.split()[2:]) for line in out.getvalue().splitlines()]
    assert said[1:] == ["records_lost 0", "alerts camera 3, trap 2", "latency_ms p50 312.5, p95 unknown"]


def test_no_alert_is_none(tell: Narrator, out: io.StringIO) -> None:
    _summary(tell, {"alerts": {}})
    assert out.getvalue().split()[-1] == "none"


def test_a_persons_message_says_to_whom_and_over_what_it_came_and_its_title_once(tell: Narrator, out: io.StringIO) -> None:
    tell.people([Got("佐藤", "mail", "【わな作動】北尾根 3番", "【わな作動】北尾根 3番\n\nまだ誰も向かっていません。")])
    assert "佐藤 (mail) 【わな作動】北尾根 3番 まだ誰も向かっていません。" in " ".join(out.getvalue().split())


# --- What people do by themselves


@pytest.fixture
def phones() -> Iterator[Phones]:
    with Phones(EVERYBODY, now_us=lambda: 0, public_url="http://127.0.0.1:1") as phones:
        phones.line.follow(OFFICER)
        yield phones


def push(phones: Phones, title: str, label: str | None) -> None:
    """The gateway sends this to the office, with a button if it asks something."""
    action = {"type": "postback", "label": label, "data": title, "displayText": label}
    buttons: list[Any] = [{"type": "button", "action": action}] if label else [{"type": "text", "text": "6月3日"}]
    head, body = ({"type": "box", "layout": "vertical", "contents": it} for it in ([{"type": "text", "text": title}], buttons))
    bubble = {"type": "bubble", "header": head, "body": body}
    message = {"to": phones.address(OFFICER, "line"), "messages": [{"type": "flex", "altText": title, "contents": bubble}]}
    headers = {"Authorization": f"Bearer {phones.line.token}"}
    httpx.post(f"{phones.line.url}/v2/bot/message/push", json=message, headers=headers).raise_for_status()


def said(phones: Phones) -> list[str]:
    return [one.body for one in phones.line.phone(OFFICER).chat if one.how == "said"]


def test_people_leave_the_answer_to_who_has_just_pressed_something(phones: Phones) -> None:
    habits = Habits(phones, lambda _: None)
    push(phones, "【わな作動】北尾根 3番", "行きます")
    for now_s in (0, 60):
        habits.look(now_s, held=True)
    assert said(phones) == []
    habits.look(61)
    habits.look(62)
    assert said(phones) == ["行きます"]


def test_the_days_test_is_answered_though_something_else_came_after_it(phones: Phones) -> None:
    habits = Habits(phones, lambda _: None)
    push(phones, "【通信テスト】", "届きました")
    push(phones, "【わな作動】北尾根 3番", None)
    habits.look(0)
    habits.look(60)
    habits.look(120)
    assert said(phones) == ["届きました"]


def test_a_test_that_somebody_answered_is_not_answered_again(phones: Phones) -> None:
    habits = Habits(phones, lambda _: None)
    push(phones, "【通信テスト】", "届きました")
    phones.line.tap(OFFICER, "届きました")
    habits.look(0)
    habits.look(60)
    assert said(phones) == ["届きました"]


def test_the_days_test_has_more_time_than_the_people_are_held() -> None:
    assert CanaryConfig.model_validate(_canary(1_780_434_720.0)["canary"]).within == 600


def test_a_scene_that_is_held_stands_still_and_goes_on_where_it_was() -> None:
    scene = SceneTime(100.0)
    assert scene.pass_(110.0, held=False) == 10.0
    assert scene.pass_(200.0, held=True) == 10.0
    assert scene.pass_(201.0, held=False) == 11.0


def test_a_kept_folder_is_one_demos_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, codes = tmp_path / "town", []

    def run(*_: object, folder: Path, **__: object) -> int:
        """While one runs there, another is asked for; then it leaves what a demo leaves."""
        codes.append(cli.main(["demo", "--keep", str(folder)]))
        (folder / "town").mkdir()
        return 0

    monkeypatch.setattr(demo, "run", run)
    assert cli.main(["demo", "--keep", str(folder)]) == 0
    assert codes == [2]
    assert f"another demo runs in {folder}; stop that first, or name a new folder" in capsys.readouterr().err
    assert cli.main(["demo", "--keep", str(folder)]) == 2
    assert f"{folder} is not empty; name a new folder" in capsys.readouterr().err


def test_a_folder_that_is_no_demos_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a-letter").touch()
    assert cli.main(["demo", "--keep", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a-letter"]


# --- While the gateway is gone


class NoGateway:
    """What stands in the gateway's place: nothing, until it is opened; then it knows a trap that sprang, until it is visited."""

    def __init__(self, port: int) -> None:
        self.visits: list[Any] = []
        self._port, self._stack = port, ExitStack()

    def open(self) -> None:
        alert = {"rule": "trap-sprung", "node": "kitaone", "device": "trap-3", "place": "北尾根", "label": "3番"}

        class Answers(BaseHTTPRequestHandler):
            def do_GET(answers) -> None:  # noqa: N805
                answers.say({"alerts": [] if self.visits else [alert]} if "alerts" in answers.path else {"ok": True})

            def do_POST(answers) -> None:  # noqa: N805
                self.visits.append(json.loads(answers.rfile.read(int(answers.headers["content-length"]))))
                answers.say({})

            def say(answers, body: object) -> None:  # noqa: N805
                answers.send_response(200)
                answers.end_headers()
                answers.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        server = self._stack.enter_context(ThreadingHTTPServer(("127.0.0.1", self._port), Answers))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)

    def close(self) -> None:
        self._stack.close()


def test_a_gateway_that_is_killed_is_said_once_and_its_town_goes_on_until_it_is_back(
    tmp_path: Path, phones: Phones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next scene begins with a round, over the gateway's API, while there is none."""
    monkeypatch.setattr(demo, "LOOK_S", 0.0)
    monkeypatch.setattr(demo, "BEAT_S", 0.01)
    stop, said = Event(), io.StringIO()
    with nats(tmp_path / "broker") as broker, Phone(free_port()) as phone:
        town = Town(tmp_path / "town", broker, phone, World(1), nodes=1, sections=SECTIONS, phones=phones)
        with closing(NoGateway(town.api_port)) as gateway:
            beats = 0

            def beat(_: float) -> None:
                nonlocal beats
                beats += 1
                if beats == 3:
                    gateway.open()
                if gateway.visits:
                    stop.set()

            monkeypatch.setattr(stop, "wait", beat)
            tell = Narrator(Console(file=said, width=200))
            demo._play(town, phones, tell, Habits(phones, tell.say), 30, stop)
        for edge in town.edges:
            for port in edge.ports.values():
                port.unplug()
    assert [visit["device"] for visit in gateway.visits] == ["trap-3"]
    lines = said.getvalue().splitlines()
    gone, back = ([at for at, line in enumerate(lines) if words in line] for words in ("gives no answer", "gateway is back"))
    assert (len(gone), len(back)) == (1, 1)
    assert lines[gone[0] + 1].endswith(f"satomori-gateway run {tmp_path}/town/gateway.toml"), "to be copied"
    assert gone < back


def test_who_asks_a_gateway_that_is_gone_hears_what_to_do(tmp_path: Path, phones: Phones) -> None:
    with nats(tmp_path / "broker") as broker, Phone(free_port()) as phone:
        town = Town(tmp_path / "town", broker, phone, World(1), nodes=0)
        for ask in (town.get, town.put):
            with pytest.raises(ConnectionError, match=r"gives no answer \(.*refused.* again: .*gateway\.toml\. Its log: "):
                ask("/api/v1/alerts")
