"""The InfluxDB store: which answers of a server mean later, which mean never, and how a line is made."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.store import InfluxdbStore, InfluxdbStoreConfig, Key, open_store, try_store
from gateway.store.server import line_head
from simulators.ports import free_port
from tests.gateway.store.conftest import MakeInfluxdbConfig

TRAP = ("kita-01", "trap-11", "trap_closed")
WRITTEN = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.7\r\n\r\n"


class Request(NamedTuple):
    target: str
    headers: dict[str, str]
    body: bytes


class Server(NamedTuple):
    url: str
    requests: list[Request]


@contextmanager
def answering(reply: bytes | None, port: int = 0) -> Iterator[Server]:
    """A server that takes whole requests and answers each with these bytes, or with nothing, then hangs up."""
    requests: list[Request] = []
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if done.is_set():
                    return
                connection.settimeout(10)
                if connection.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS handshake: this server speaks none
                    connection.sendall(reply or b"")
                    continue
                stream = connection.makefile("rb")
                with stream:
                    target = stream.readline().split()[1].decode()
                    headers = {}
                    while line := stream.readline().strip():
                        name, _, value = line.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    requests.append(Request(target, headers, stream.read(int(headers["content-length"]))))
                    if reply is None:
                        stream.read()  # until the client gives up
                    else:
                        connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = listener.getsockname()[:2]
    try:
        yield Server(f"http://{host}:{port}", requests)
    finally:
        done.set()
        socket.create_connection((host, port)).close()  # wakes the accept
        thread.join(15)
        listener.close()


def http(status: str, body: str = "", *headers: str) -> bytes:
    content = body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def write_to(config: InfluxdbStoreConfig) -> None:
    with closing(InfluxdbStore(config)) as store:
        store.write([(TRAP, 1, 1.0)])


def test_a_write_is_one_request_of_escaped_lines_in_milliseconds(influxdb_config: MakeInfluxdbConfig) -> None:
    with answering(WRITTEN) as server, closing(InfluxdbStore(influxdb_config(server.url))) as store:
        store.write([(TRAP, 1_780_000_000_000, 1), (("kita-01", "a b,c=d", "a b,c=d"), 2, 0.5)])

    (request,) = server.requests
    asked = urlsplit(request.target)
    assert asked.path == "/api/v2/write"
    assert parse_qs(asked.query) == {"org": ["example-town"], "bucket": ["readings"], "precision": ["ms"]}
    assert request.headers["authorization"] == "Token invented-token"
    assert request.body.decode().split("\n") == [
        "trap_closed,device=trap-11,node=kita-01 value=1.0 1780000000000",
        r"a\ b\,c=d,device=a\ b\,c\=d,node=kita-01 value=0.5 2",
    ]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            http("401 Unauthorized", '{"code":"unauthorized","message":"no such\\n token"}'),
            "token .*no such token.*restart",
        ),
        (http("403 Forbidden"), "refuses the token .*403: Forbidden.*may write and read bucket 'readings' into .*token"),
        (
            http("404 Not Found", '{"message":"bucket not found"}'),
            "no bucket 'readings' in organization 'example-town'",
        ),
        (http("400 Bad Request", '{"message":"unable to parse"}'), "will not take this .400: unable to parse"),
        (http("413 Too Large", "<html>too\nlarge</html>"), "will not take this .413: <html>too large</html>"),
        (http("422 Unprocessable Entity", '{"message":"points beyond retention policy"}'), "beyond retention policy"),
        (http("301 Moved Permanently", "", "Location: https://example.test/"), "will not take this .301"),
    ],
)
def test_what_time_will_not_mend_is_refused_in_the_server_s_words(
    influxdb_config: MakeInfluxdbConfig, reply: bytes, said: str
) -> None:
    with answering(reply) as server, pytest.raises(StoreRefused, match=said) as caught:
        write_to(influxdb_config(server.url))
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "invented-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (http("429 Too Many Requests", '{"message":"slow down"}', "Retry-After: 30"), "429: slow down.*wait 30 s"),
        (http("500 Internal Server Error", '{"message":"engine: disk full"}'), "500: engine: disk full"),
        (http("503 Service Unavailable"), "503: Service Unavailable"),
        (http("500 Oops", "[1, 2]"), r"500: \[1, 2\]"),
        (http("500 Oops", '{"message": {"a": 1}}'), "500: {'a': 1}"),
        (http("200 OK", "<html>please log in</html>"), "answered 200, not 204: is something else answering"),
        (http("202 Accepted"), "answered 202, not 204"),
        (b"\xff\xfe garbage \x00" * 50, "gives no answer"),
        (b"", "gives no answer"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n\xff\xfe", "gives no answer"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 200\r\n\r\ncut of", "gives no answer"),
        (b"HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno", "gives no answer"),
    ],
)
def test_what_may_pass_is_an_outage_and_never_taken_for_written(
    influxdb_config: MakeInfluxdbConfig, reply: bytes, said: str
) -> None:
    with answering(reply) as server, pytest.raises(StoreDown, match=said) as caught:
        write_to(influxdb_config(server.url))
    assert server.url in str(caught.value)
    assert "invented-token" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up_after_the_timeout(influxdb_config: MakeInfluxdbConfig) -> None:
    with answering(None) as server, pytest.raises(StoreDown, match=r"gives no answer: .*timed out"):
        write_to(influxdb_config(server.url, timeout_s=0.2))


def test_a_caller_in_a_hurry_waits_only_as_long_as_it_says(influxdb_config: MakeInfluxdbConfig) -> None:
    config = influxdb_config("http://127.0.0.1:1").model_dump() | {"timeout_s": 5}
    with answering(None) as server, closing(InfluxdbStore(InfluxdbStoreConfig(**{**config, "url": server.url}))) as store:
        began = time.monotonic()
        with pytest.raises(StoreDown, match=r"gives no answer: .*timed out"):
            store.write([(TRAP, 1, 1.0)], patience_s=0.2)
        assert time.monotonic() - began < 2, "traps wait as long"


def test_traps_never_wait_long_for_a_server(influxdb_config: MakeInfluxdbConfig) -> None:
    assert InfluxdbStoreConfig.model_fields["timeout_s"].default == 2
    with pytest.raises(ValidationError, match="timeout_s"):
        influxdb_config("http://127.0.0.1:1", timeout_s=5.1)


def test_a_server_that_is_not_there_is_an_outage_and_its_return_ends_it(influxdb_config: MakeInfluxdbConfig) -> None:
    with pytest.raises(StoreDown, match=r"gives no answer: .*Does it run, is the url right"):
        write_to(influxdb_config(f"http://127.0.0.1:{free_port()}"))

    port = free_port()
    with closing(InfluxdbStore(influxdb_config(f"http://127.0.0.1:{port}"))) as store:
        with pytest.raises(StoreDown):
            store.write([(TRAP, 1, 1.0)])
        with answering(WRITTEN, port) as server:
            store.write([(TRAP, 1, 1.0)])
        assert len(server.requests) == 1


def test_a_server_without_the_tls_it_should_have_is_an_outage(influxdb_config: MakeInfluxdbConfig) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server, pytest.raises(StoreDown, match="TLS: SSLError"):
        write_to(influxdb_config(server.url.replace("http:", "https:")))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.builds(
        lambda status, headers, body: b"HTTP/1.1 %d Word\r\n%b\r\n\r\n%b" % (status, headers, body),
        st.integers(200, 999).filter(lambda status: status != 204),
        st.sampled_from([b"X: y", b"Content-Encoding: gzip", b"Content-Length: 5", b"Transfer-Encoding: chunked"]),
        st.binary(max_size=60),
    )
)
def test_whatever_bytes_come_back_it_is_one_of_the_two_errors(influxdb_config: MakeInfluxdbConfig, reply: bytes) -> None:
    with answering(reply) as server, pytest.raises((StoreDown, StoreRefused)):
        write_to(influxdb_config(server.url, timeout_s=2))


# What a server does with a line, by InfluxDB's reference: the inverse of escaping, written apart from it.
def parsed(head: str) -> Key:
    def split(text: str, at: str) -> list[str]:
        parts, quoted = [""], False
        for letter in text:
            if letter == at and not quoted:
                parts.append("")
            else:
                parts[-1] += letter
            quoted = letter == "\\" and not quoted
        return parts

    def plain(text: str, marks: str) -> str:
        for mark in marks:
            text = text.replace(f"\\{mark}", mark)
        return text

    names, field = split(head, " ")
    assert field == "value="
    measurement, *tags = split(names, ",")
    values = dict(split(tag, "=") for tag in tags)
    assert list(values) == ["device", "node"]
    return plain(values["node"], ",= "), plain(values["device"], ",= "), plain(measurement, ", ")


names = st.text(st.sampled_from(",= \\\n\t\0\"'#_abわ３") | st.characters(), max_size=12)


@given(node=names, device=names, metric=names)
def test_every_name_survives_a_line_or_is_refused(node: str, device: str, metric: str) -> None:
    try:
        head = line_head((node, device, metric))
    except StoreRefused as error:
        assert "can't be a line" in str(error)  # noqa: PT017 - one of two outcomes
        assert not all(name.isidentifier() for name in (node, device, metric)) or metric.startswith("_")
    else:
        assert parsed(head) == (node, device, metric)
        assert head.isprintable()


@pytest.mark.parametrize(
    "key",
    [
        ("", "d", "rssi"),
        ("n", "", "rssi"),
        ("n", "d", ""),
        ("n\n", "d", "rssi"),
        ("n", "d\\", "rssi"),
        ("n", "d", "# rssi"),
        ("n", "d", "_rssi"),
    ],
)
def test_a_name_that_would_break_the_line_is_refused_before_anything_is_sent(
    influxdb_config: MakeInfluxdbConfig, key: Key
) -> None:
    with (
        closing(InfluxdbStore(influxdb_config("http://127.0.0.1:1"))) as store,
        pytest.raises(StoreRefused, match="a line"),
    ):
        store.write([(TRAP, 1, 1.0), (key, 1, 1.0)])


@pytest.mark.services
class TestAtTheStart:
    """Against the real server: open_store asks once, and try_store is what `satomori-gateway check` asks."""

    def test_who_may_write_and_read_is_let_in(self, influxdb: str, influxdb_config: MakeInfluxdbConfig) -> None:
        store = open_store(influxdb_config(influxdb))
        try:
            store.write([(("kitayama-03", "node", "let_in"), 1_780_434_720_000, 1.5)])
            assert store.latest("kitayama-03", "node", "let_in") == (1_780_434_720_000, 1.5)
        finally:
            store.close()
        try_store(influxdb_config(influxdb))

    def test_a_wrong_token_is_said_at_once_and_not_shown(
        self, influxdb: str, influxdb_config: MakeInfluxdbConfig, tmp_path: Path
    ) -> None:
        config = influxdb_config(influxdb)
        (tmp_path / "token").write_text("another-token\n")
        with pytest.raises(StoreRefused, match=r"refuses the token .401: .*token and restart") as caught:
            open_store(config)
        assert "another-token" not in str(caught.value)

    def test_a_bucket_that_is_not_there_is_named_with_what_makes_it(
        self, influxdb: str, influxdb_config: MakeInfluxdbConfig
    ) -> None:
        config = influxdb_config(influxdb).model_copy(update={"bucket": "nowhere"})
        with pytest.raises(
            StoreRefused, match=r"no bucket 'nowhere' in organization 'example-town'.*satomori-gateway store init"
        ):
            open_store(config)

    @pytest.mark.parametrize("lacking", [{"database": "nowhere"}, {"retention_policy": "nowhere"}])
    def test_a_mapping_that_is_not_there_is_named(
        self, influxdb: str, influxdb_config: MakeInfluxdbConfig, lacking: dict[str, str]
    ) -> None:
        with pytest.raises(StoreRefused, match=r"can't be read: .* not found: nowhere. Run `satomori-gateway store init`"):
            open_store(influxdb_config(influxdb).model_copy(update=lacking))

    def test_for_a_server_that_is_not_there_no_start_waits_but_a_check_says_it(
        self, influxdb_config: MakeInfluxdbConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = influxdb_config(f"http://127.0.0.1:{free_port()}")
        open_store(config).close()
        assert "the series store can't be used yet: InfluxDB at" in caplog.text
        with pytest.raises(StoreDown, match="gives no answer"):
            try_store(config)


def test_a_server_that_wants_points_has_let_us_in(influxdb_config: MakeInfluxdbConfig) -> None:
    with (
        answering(http("400 Bad Request", '{"message":"writing requires points"}')) as server,
        closing(InfluxdbStore(influxdb_config(server.url))) as store,
    ):
        store._server.try_to_write(5)
        with pytest.raises(StoreRefused, match="writing requires points"):
            store.write([(TRAP, 1, 1.0)])


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (http("200 OK", "<html>please log in</html>"), StoreDown, "answered no JSON: <html>please log in</html>"),
        (http("200 OK", '{"status":"ok"}'), StoreDown, "answered other JSON than it should: .*something else answering"),
        (http("200 OK", '{"results":[]}'), StoreDown, "answered other JSON than it should"),
        (
            http("200 OK", '{"results":[{"series":[{"name":"trap_closed","values":[[1,2.0]],"partial":true}]}]}'),
            StoreRefused,
            "a part of an answer only: let its max-row-limit be 0",
        ),
        (http("200 OK", '{"results":[{"error":"query interrupted"}]}'), StoreDown, "can't be read: query interrupted"),
        (http("401 Unauthorized", '{"error":"no such token"}'), StoreRefused, "refuses the token .401: no such token"),
        (http("503 Service Unavailable"), StoreDown, "503: Service Unavailable"),
        (http("400 Bad Request", '{"error":"parse"}'), StoreRefused, "will not take this .400: parse"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\ncut of", StoreDown, "gives no answer"),
        (b"", StoreDown, "gives no answer"),
    ],
)
def test_a_question_that_fails_fails_as_a_write_does(
    influxdb_config: MakeInfluxdbConfig, reply: bytes, kind: type[Exception], said: str
) -> None:
    with (
        answering(reply) as server,
        closing(InfluxdbStore(influxdb_config(server.url))) as store,
        pytest.raises(kind, match=said) as caught,
    ):
        store.latest(*TRAP)
    assert server.url in str(caught.value)


def test_a_question_names_the_mapping_and_who_asks(influxdb_config: MakeInfluxdbConfig) -> None:
    with answering(http("200 OK", '{"results":[{}]}')) as server:
        config = influxdb_config(server.url).model_copy(update={"database": "town", "retention_policy": "ever"})
        with closing(InfluxdbStore(config)) as store:
            assert store.latest(*TRAP) is None
    (request,) = server.requests
    assert request.headers["authorization"] == "Token invented-token"
    fields = parse_qs(request.body.decode())
    assert (request.target, fields["db"], fields["rp"], fields["epoch"]) == ("/query", ["town"], ["ever"], ["ms"])


class TestConfig:
    def test_the_token_s_file_must_be_there(self, influxdb_config: MakeInfluxdbConfig, tmp_path: Path) -> None:
        config = influxdb_config("http://127.0.0.1:1")
        (tmp_path / "token").unlink()
        with pytest.raises(ConfigError, match=r"store\.token_file: .*token can't be read"):
            open_store(config)

    @pytest.mark.parametrize("content", ["", "\n", "two words", "one\ntwo\n", "日本"])
    def test_it_must_hold_one_token_which_is_never_shown(
        self, influxdb_config: MakeInfluxdbConfig, tmp_path: Path, content: str
    ) -> None:
        config = influxdb_config("http://127.0.0.1:1")
        (tmp_path / "token").write_text(content, encoding="utf-8")
        (tmp_path / "token").chmod(0o600)
        with pytest.raises(ConfigError, match=r"store\.token_file") as caught:
            open_store(config)
        assert not content.strip() or content.strip() not in str(caught.value)

    @pytest.mark.parametrize("url", ["influx.local:8086", "ftp://influx.local", "http://", "http://a b", "http://me:pw@x"])
    def test_a_url_that_can_not_be_one_is_named(self, influxdb_config: MakeInfluxdbConfig, url: str) -> None:
        with pytest.raises(ValidationError, match="url"):
            influxdb_config(url)

    def test_a_slash_at_the_end_of_the_url_is_no_matter(self, influxdb_config: MakeInfluxdbConfig) -> None:
        with answering(WRITTEN) as server:
            write_to(influxdb_config(f"{server.url}/"))
        assert server.requests[0].target.startswith("/api/v2/write?")
