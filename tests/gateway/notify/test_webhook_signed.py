"""A webhook to machines: what its body holds, how a receiver knows whose word it is, and where it may go."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.notify import Delivered, Retry
from gateway.notify.message import Message
from gateway.notify.queue import read_message
from gateway.notify.webhook import Webhook, WebhookConfig
from tests.gateway.town import NOW_US

SECRET = b"an invented secret of a webhook"
MESSAGE = Message(
    id="n-1", severity="critical", title="【わな作動】", body="北尾根 3番。", alert="a-1", page="p-1",
    data={"kind": "trap", "rule": "sprung", "node": "kitayama-03", "device": "trap-11", "place": "北尾根", "label": "3番",
          "event_time": "2026-06-02T21:12:00.000Z", "alert_time": "2026-06-02T21:12:01.000Z"},
)  # fmt: skip


class Receiver(ThreadingHTTPServer):
    """Keeps each POST as it came: headers and bytes."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Keeps)


class _Keeps(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


def webhook(url: str, **more: Any) -> Webhook:
    return Webhook("farmers", WebhookConfig.model_validate({"type": "webhook", "url": url, **more}), lambda: NOW_US)


def test_the_body_is_one_flat_object_with_what_machines_want(receiver: Receiver) -> None:
    hook = webhook(f"http://127.0.0.1:{receiver.server_port}/")
    assert hook.send("n-1", "", MESSAGE) == Delivered()
    hook.close()
    [(headers, body)] = receiver.posts
    said = json.loads(body)
    shown = ("id", "alert", "page", "kind", "rule", "severity", "title", "body", "late", "over")
    assert {name: said[name] for name in shown} == {
        "id": "n-1", "alert": "a-1", "page": "p-1", "kind": "trap", "rule": "sprung", "severity": "critical",
        "title": "【わな作動】", "body": "北尾根 3番。", "late": False, "over": False,
    }  # fmt: skip
    assert {name: said[name] for name in ("place", "label", "node", "device", "event_time", "alert_time")} == {
        name: MESSAGE.data[name] for name in ("place", "label", "node", "device", "event_time", "alert_time")
    }
    assert (headers["idempotency-key"], headers["content-type"]) == ("n-1", "application/json")
    assert "x-satomori-signature" not in headers


def test_a_receiver_with_the_secret_makes_the_same_sum(receiver: Receiver, tmp_path: Path) -> None:
    """As gateway/README.md tells receivers to do it."""
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    (tmp_path / "secret").chmod(0o600)
    hook = webhook(f"http://127.0.0.1:{receiver.server_port}/", secret_file=tmp_path / "secret")
    hook.send("n-1", "", MESSAGE)
    hook.close()
    [(headers, body)] = receiver.posts
    at, mac = (part.split("=", 1)[1] for part in headers["x-satomori-signature"].split(","))
    assert int(at) == NOW_US // 1_000_000
    assert mac == hmac.new(SECRET, at.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert mac != hmac.new(SECRET, at.encode() + b"." + body + b" ", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(("content", "said"), [(None, "can't be read"), (b"short", "less than 16 characters")])
def test_a_secret_that_cannot_be_used_is_said_at_the_start(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(ConfigError, match=rf"contact\.farmers\.secret_file: .*{said}"):
        webhook("https://chat.example/", secret_file=path)


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data", "https://10.0.0.1/hook", "http://93.184.215.14/hook"])
def test_where_it_may_not_go_nothing_is_sent_and_the_reason_names_the_setting(url: str) -> None:
    hook = webhook(url, timeout_s=1)
    outcome = hook.send("n-1", "", MESSAGE)
    hook.close()
    assert isinstance(outcome, Retry)
    assert outcome.reason.startswith("contact.farmers.url: ")


def test_a_row_of_before_there_were_several_channels_is_sent_as_it_was_written() -> None:
    row = {"id": "n-1", "alert": "a-1", "kind": "trap", "rule": "sprung", "severity": "critical", "title": "【わな作動】",
           "body": "北尾根 3番。", "late": True, "place": "北尾根", "node": "kitayama-03"}  # fmt: skip
    said = read_message("n-1", json.dumps(row)).for_machines()
    assert {name: said[name] for name in row} == row


@pytest.mark.parametrize("body", ["{}", "[]", "null", "{", '{"title": 1, "body": ""}', '"x"'])
def test_what_is_no_message_is_said_to_be_none(body: str) -> None:
    with pytest.raises(ValueError, match=r"title and body|Expecting"):
        read_message("n-1", body)
