"""Real series servers on loopback, each in a folder of its own: started, killed and started again on the same files."""

import base64
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from pathlib import Path

from simulators.ports import free_port
from tests.services import listening, require_binary, running

USER, PASSWORD, TOKEN = "town", "invented-password", "invented-token"


class Served:
    """One server. `kill` is -9; `start` brings it back at the same port and files; `hang` leaves it there, saying nothing."""

    def __init__(self, argv: list[str | Path], port: int, path: str, ready: Callable[[HTTPResponse], bool] | None = None) -> None:
        """It is there when it answers at `path`, and `ready` says so of the answer."""
        self.url = f"http://127.0.0.1:{port}"
        self._argv, self._path, self._ready, self._stack = argv, path, ready, ExitStack()

    def start(self) -> None:
        self._process = self._stack.enter_context(running(self._argv, self._answers))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "Served":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _answers(self) -> bool:
        try:
            with get(self.url + self._path, user=f"{USER}:invented") as answer:
                return self._ready is None or self._ready(answer)
        except OSError:
            return False


def get(url: str, data: bytes | None = None, user: str = "") -> HTTPResponse:
    headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    answer = urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10)  # noqa: S310 - a server of ours
    assert isinstance(answer, HTTPResponse)
    return answer


def victoria_metrics(folder: Path, *more: str) -> Served:
    """As the gateway's README has it started."""
    port = free_port()
    argv: list[str | Path] = [
        require_binary("victoria-metrics"),
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={folder / 'victoria-metrics'}",
        "-retentionPeriod=100y",
        *(more or ("-dedup.minScrapeInterval=1ms", "-snapshotsMaxAge=1d")),
    ]

    def older_than_a_second(answer: HTTPResponse) -> bool:
        """A store does not trust one that began in this very second."""
        began = re.search(rb"^vm_app_start_timestamp (\d+)", answer.read(), re.MULTILINE)
        return began is not None and parsedate_to_datetime(answer.headers["Date"]).timestamp() > int(began[1])

    return Served(argv, port, "/metrics", older_than_a_second)


def influxdb_1(folder: Path) -> Served:
    """Debian's InfluxDB, which wants to know who asks."""
    home, port = folder / "influxdb", free_port()
    home.mkdir()
    (home / "influxdb.conf").write_text(
        f"""reporting-disabled = true
        bind-address = "127.0.0.1:{free_port()}"
        [meta]
        dir = "{home}/meta"
        [data]
        dir = "{home}/data"
        wal-dir = "{home}/wal"
        [monitor]
        store-enabled = false
        [continuous_queries]
        enabled = false
        [http]
        bind-address = "127.0.0.1:{port}"
        auth-enabled = true
        """
    )
    return Served([require_binary("influxd"), "-config", home / "influxdb.conf"], port, "/ping")


def influxql(url: str, question: str) -> str:
    data = urllib.parse.urlencode({"q": question}).encode()
    with get(f"{url}/query", data, f"{USER}:{PASSWORD}") as answer:
        return answer.read().decode()


def say_who_is_who(influxdb: Served) -> None:
    """The first user, by whom all others are let in."""
    influxql(influxdb.url, f"CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")


@contextmanager
def as_influxdb_2(influxdb: Served, folder: Path) -> Iterator[str]:
    """The url of a proxy that makes of version 2's way of writing version 1's, and of its token a user. Nothing else."""
    port, home = free_port(), folder / "nginx"
    home.mkdir(exist_ok=True)
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    temporary = "\n".join(f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "nginx.conf").write_text(
        f"""daemon off;
        master_process off;
        pid {home}/pid;
        error_log stderr;
        events {{}}
        http {{
            access_log off;
            {temporary}
            client_max_body_size 0;
            map $http_authorization $who {{ "Token {TOKEN}" "Basic {basic}"; default $http_authorization; }}
            server {{
                listen 127.0.0.1:{port};
                proxy_set_header Authorization $who;
                location = /api/v2/write {{
                    rewrite ^ /write?db=$arg_bucket&precision=$arg_precision? break;
                    proxy_pass {influxdb.url};
                }}
                location / {{ proxy_pass {influxdb.url}; }}
            }}
        }}
        """
    )
    with running([require_binary("nginx"), "-p", home, "-c", home / "nginx.conf"], lambda: listening(port)):
        yield f"http://127.0.0.1:{port}"
