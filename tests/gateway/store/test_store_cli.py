"""`satomori-gateway store init`: against a real InfluxDB 1 and VictoriaMetrics; for 2, which no package holds, a stand-in.

That knows the few requests of its reference that are needed, and answers anything else, or anything incomplete, with an error.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway import cli
from gateway.store import open_store
from tests.gateway.store import servers
from tests.gateway.store.conftest import MakeInfluxdbConfig

ORG_ID, ALL_ACCESS = "00000000000000aa", "all-access-token"


class Version2(ThreadingHTTPServer):
    """What it holds, and what was changed by whom."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: list[dict[str, Any]] = []
        self.mappings: list[dict[str, Any]] = []
        self.made: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Version2

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        fields = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if asked.path == "/ping":
            self._say(204, None)
        elif not self._known(ALL_ACCESS):
            self._say(401, {"code": "unauthorized", "message": "unauthorized access"})
        elif asked.path == "/api/v2/orgs" and fields.get("org") == "example-town":
            self._say(200, {"orgs": [{"id": ORG_ID, "name": "example-town"}]})
        elif asked.path in ("/api/v2/orgs", "/api/v2/buckets", "/api/v2/dbrps") and fields.get("org") != "example-town":
            self._say(404, {"code": "not found", "message": "organization name not found"})
        elif asked.path == "/api/v2/buckets":
            self._say(200, {"buckets": [one for one in self.server.buckets if one["name"] == fields["name"]]})
        elif asked.path == "/api/v2/dbrps":
            self._say(200, {"content": [one for one in self.server.mappings if one["database"] == fields["db"]]})
        else:
            self._say(404, {"code": "not found", "message": "path not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        if path == "/api/v2/write" and self._known(servers.TOKEN):
            self._say(204 if self.server.buckets else 404, None)
        elif path == "/query" and self._known(servers.TOKEN):
            fields = parse_qs(body.decode())
            there = any(one["database"] == fields["db"][0] for one in self.server.mappings)
            self._say(200, {"results": [{} if there else {"error": "database not found: " + fields["db"][0]}]})
        elif not self._known(ALL_ACCESS):
            self._say(401, {"code": "unauthorized", "message": "unauthorized access"})
        elif path == "/api/v2/buckets":
            said = json.loads(body)
            bucket = {"id": "00000000000000bb", "orgID": said["orgID"], "name": said["name"], "retentionRules": []}
            self.server.buckets.append(bucket)
            self.server.made.append(f"bucket {said['name']}")
            self._say(201 if said["orgID"] == ORG_ID else 404, bucket)
        elif path == "/api/v2/dbrps":
            said = json.loads(body)
            mapping = {name: said[name] for name in ("bucketID", "database", "retention_policy")}
            mapping |= {"id": "00000000000000cc", "orgID": ORG_ID, "default": said.get("default", False), "virtual": False}
            self.server.mappings.append(mapping)
            self.server.made.append(f"mapping {said['database']}/{said['retention_policy']}")
            self._say(201, mapping)
        else:
            self._say(404, {"code": "not found", "message": "path not found"})

    def _known(self, token: str) -> bool:
        return self.headers["Authorization"] == f"Token {token}"

    def _say(self, status: int, body: dict[str, Any] | None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Influxdb-Version", "v2.7.11")
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def version_2() -> Iterator[Version2]:
    with Version2() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def gateway_toml(folder: Path, store: str) -> Path:
    (folder / "media").mkdir(exist_ok=True)
    secret(folder / "tokens", "office operator invented\n")
    path = folder / "gateway.toml"
    path.write_text(
        f"""
        broker = {{ url = "mqtt://127.0.0.1:1883" }}
        state = {{ url = "sqlite:///{folder / "state.db"}" }}
        store = {{ {store} }}
        api = {{ tokens_file = "{folder / "tokens"}" }}
        media = {{ folder = "{folder / "media"}" }}
        """
    )
    return path


def influxdb_table(folder: Path, url: str, more: str = "") -> str:
    token = secret(folder / "token", servers.TOKEN)
    return f'type = "influxdb", url = "{url}", org = "example-town", bucket = "readings", token_file = "{token}"{more}'


def init(config: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = cli.main(["store", "init", str(config), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_in_version_2_it_makes_bucket_and_mapping_once(
    version_2: Version2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = gateway_toml(tmp_path, influxdb_table(tmp_path, version_2.url))
    admin = ("--token-file", str(secret(tmp_path / "admin", ALL_ACCESS)))

    assert init(config, *admin, capsys=capsys) == (
        0,
        {"ok": True, "store": "influxdb", "done": ["bucket readings: made", "mapping readings/autogen: made"]},
    )
    assert init(config, *admin, capsys=capsys)[1]["done"] == ["bucket readings: found", "mapping readings/autogen: found"]
    assert version_2.made == ["bucket readings", "mapping readings/autogen"]
    assert version_2.mappings[0]["bucketID"] == version_2.buckets[0]["id"]
    assert version_2.mappings[0]["default"] is True


def test_a_mapping_that_leads_elsewhere_is_left_and_said(
    version_2: Version2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"id": "1", "bucketID": "another", "orgID": ORG_ID, "database": "town", "retention_policy": "ever", "default": True}
    version_2.mappings.append({**other, "virtual": False})
    more = ', database = "town", retention_policy = "ever"'
    config = gateway_toml(tmp_path, influxdb_table(tmp_path, version_2.url, more))

    code, said = init(config, "--token-file", str(secret(tmp_path / "admin", ALL_ACCESS)), capsys=capsys)
    assert code == 2
    assert "maps town/ever to another bucket than 'readings'" in said["error"]
    assert version_2.made == ["bucket readings"]


def test_the_gateway_s_own_token_makes_nothing_and_the_error_says_which_would(
    version_2: Version2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = gateway_toml(tmp_path, influxdb_table(tmp_path, version_2.url))
    code, said = init(config, capsys=capsys)
    assert (code, version_2.made) == (2, [])
    assert "refuses the token (401: " in said["error"]
    assert f"Put one that may make buckets or databases into {tmp_path / 'token'}" in said["error"]


@pytest.mark.services
def test_in_version_1_it_makes_the_database_once_and_readings_can_go_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], influxdb_config: MakeInfluxdbConfig
) -> None:
    admin = ("--token-file", str(secret(tmp_path / "admin", f"{servers.USER}:{servers.PASSWORD}")))
    with servers.influxdb_1(tmp_path) as server, servers.as_influxdb_2(server, tmp_path) as url:
        servers.say_who_is_who(server)
        config = gateway_toml(tmp_path, influxdb_table(tmp_path, url, ', retention_policy = "ever"'))
        assert init(config, *admin, capsys=capsys)[1]["done"] == ["database readings: made", "retention policy ever: made"]
        assert init(config, *admin, capsys=capsys)[1]["done"] == ["database readings: found", "retention policy ever: found"]

        key = ("kita-01", "trap-11", "heartbeat")
        with closing(open_store(influxdb_config(url).model_copy(update={"retention_policy": "ever"}))) as store:
            store.write([(key, 1_700_000_000_000, 1.0)])
            assert store.latest(*key) == (1_700_000_000_000, 1.0)


@pytest.mark.services
def test_a_server_that_needs_nothing_made_is_only_tried(
    victoria_metrics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = gateway_toml(tmp_path, f'type = "victoriametrics", url = "{victoria_metrics}", journal = "{tmp_path}/journal"')
    assert init(config, capsys=capsys) == (0, {"ok": True, "store": "victoriametrics", "done": []})
    assert cli.main(["store", "init", str(config)]) == 0
    assert capsys.readouterr().out == "victoriametrics: takes and gives readings\n"
