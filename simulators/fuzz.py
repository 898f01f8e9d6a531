"""The web side asked by who means no good: every operation of the OpenAPI document, with what it describes and what it does not.

`fuzz(url, who, examples)` asks a running gateway and gives back what is wrong with its answers: an error of the server's own, a
refusal that is no problem document, an answer that is not as described. The questions come from the seed, so that what was found
is found again. `everything(folder)` runs a gateway that has every part, for parts that are not there answer nothing.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from sqlalchemy import Connection

from gateway.accounts import account
from gateway.accounts.sessions import open_session
from gateway.api.cookie import cookie_name
from gateway.contacts import people, proof
from gateway.state import open_state
from simulators.ports import free_port
from simulators.town import Program, beside_python, run_once, write_toml

ENDLESS = "/api/v1/stream"
"""Its answer does not end, so there is nothing to check it against."""
UNAVAILABLE = frozenset((501, 503, 507))
"""What a gateway may say of itself that lacks a part; an answer in its own right, with a problem document."""
PATIENCE_S = 20.0
Who = Callable[[], Mapping[str, str]]
"""The headers of whoever asks; for each operation anew, for some of them end the session that asks."""


class Finding(NamedTuple):
    """One operation that answers wrongly."""

    operation: str
    what: str


class Whole(NamedTuple):
    """A gateway with every part."""

    url: str
    officer: Who
    """Who may do everything that people may, in a browser."""
    program: Program


def bearer(token: str) -> Who:
    """Who comes with a token."""
    return lambda: {"Authorization": f"Bearer {token}"}


@contextmanager
def everything(folder: Path, fill: Callable[[Connection], None] = lambda _: None, called: str = "里山") -> Iterator[Whole]:
    """A gateway's own process with all that can be configured; whom it would reach is not there. `fill`: what it knows before.

    `called`: what its places, groups and areas are called, and the officer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, port = folder / "gateway.toml", free_port()
    url, database = f"http://127.0.0.1:{port}", f"sqlite:///{folder / 'state.db'}"
    write_toml(config, _everything(folder, port, url, database, called))
    run_once(config, "authority", "init")
    state = open_state(database)

    def officer() -> Mapping[str, str]:
        now_us = time.time_ns() // 1000
        with state.write() as connection:
            id_ = account.add(connection, called, ("operator", "officer", "installer"), "fuzz", now_us)
            session = open_session(connection, id_, "passkey", "fuzz", now_us)
        return {"Cookie": f"{cookie_name(https=False)}={session}", "Origin": url, "Sec-Fetch-Site": "same-origin"}

    try:
        with state.write() as connection:
            fill(connection)
            contact = people.add(connection, "田中", "ja", ["farmers"], "fuzz", 0)
            proof.heard(connection, people.add_address(connection, contact, "mail", "tanaka@example.jp", 0), 0)
        program = Program([str(beside_python("satomori-gateway")), "run", str(config)], folder / "gateway.log")
        program.start()
        try:
            until_s = time.monotonic() + PATIENCE_S
            while not _answers(url):
                if not program.running or time.monotonic() > until_s:
                    raise RuntimeError(f"the gateway did not start; its log ends:\n{program.log_end()}")
                time.sleep(0.05)
            yield Whole(url, officer, program)
        finally:
            program.end()
    finally:
        state.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v1/health", trust_env=False).status_code in (200, 503)
    except httpx.TransportError:
        return False


def _everything(folder: Path, port: int, url: str, database: str, called: str) -> dict[str, Any]:
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text("secret-of-nobody-at-all-for-asking")
    tokens = folder / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"board viewer {secrets.token_hex(16)}\n", encoding="utf-8")
    nobody = f"http://127.0.0.1:{free_port()}"
    counter = {"node": "hashi-01", "device": "flow-01"}
    authority = folder / "authority"
    return {
        "broker": {
            "url": f"mqtts://127.0.0.1:{free_port()}", "ca_file": str(authority / "ca.pem"),
            "certificate_file": str(authority / "gateway.pem"), "key_file": str(authority / "gateway-key.pem"),
        },
        "state": {"url": database},
        "store": {"type": "sqlite", "path": str(folder / "series.db")},
        "api": {"port": port, "tokens_file": str(tokens)},
        "media": {"folder": str(folder / "media")},
        "nodes": {
            "folder": str(authority), "host": "127.0.0.1", "port": 0, "public_url": "https://127.0.0.1:8443",
            "broker_url": "mqtts://127.0.0.1:8883", "server_names": ["127.0.0.1"],
        },
        "deployment": [
            {"node": "kitayama-03", "device": "trap-11", "kind": "trap", "place": called, "groups": ["farmers"]},
            {"node": "kitayama-03", "device": "cam-02", "kind": "camera", "place": called, "groups": ["farmers"]},
            {**counter, "kind": "flow", "place": called},
        ],
        "area": {"square": {"label": called, "line": [counter], "m2": 400.0, "capacity": 300, "shelter": True}},
        "rule": {"sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"}},
        "contact": {"office": {"type": "webhook", "url": nobody, "timeout_s": 1.0}},
        "group": {
            "farmers": {"label": called, "role": "farmer"}, "hunters": {"label": "猟友会", "role": "hunter"},
            "family-hana": {"label": called, "role": "family"}, "helpers": {"label": "捜す人", "role": "volunteer"},
        },
        "people": {"public_url": url, "folder": str(folder / "people"), "town": "霧沢町", "office": "office",
                   "mode_to": ["office"]},
        "channel": {
            "line": {"channel_secret_file": str(secret), "access_token_file": str(secret), "url": nobody, "timeout_s": 1.0},
            "push": {"contact": "mailto:office@example.jp", "allow_loopback": True, "timeout_s": 1.0},
            "mail": {"host": "127.0.0.1", "port": free_port(), "tls": "none", "from": "satomori@example.jp", "timeout_s": 1.0},
            "twilio": {"account_sid": "AC" + "0" * 32, "auth_token_file": str(secret), "from": "+815000000001", "url": nobody,
                       "timeout_s": 1.0},
        },
        "mimamori": {},
        "search": {"volunteers": "helpers"},
        "open_data": {"publisher": "霧沢町", "areas": ["square"], "captures": True},
        "route": [{"match": {"kind": "trap"}, "steps": [{"to": "farmers"}, {"after": "10m", "to": "office"}]}, {"to": "office"}],
    }  # fmt: skip


def fuzz(
    url: str,
    who: Who | None,
    examples: int,
    seed: int = 1,
    document: dict[str, Any] | None = None,
    known: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Finding]:
    """`examples` of each kind (as described, and not) an operation. `who` asks; None: nobody.
    `document`: what is described; asked of the gateway without. `known`: of what there is, by the beginning of its path, the
    path's parameters: every other question as described is about that.

    ImportError without schemathesis, which stands in `requirements/dev.txt` only.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis import GenerationMode

    who = who or dict
    schema = schemathesis.openapi.from_dict(_without_tuples(document or _document(url, who()))).exclude(path=ENDLESS)
    # Small documents, many questions: the time goes into asking.
    calm = settings(
        max_examples=examples, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    found: list[Finding] = []
    headers: dict[str, str] = {}
    for one in schema.get_all_operations():
        operation: Any = one.ok()  # type: ignore[union-attr]  # a document that can't be read raises here
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            headers.update(who())
            found_there = [ids for path, ids in (known or {}).items() if operation.path.startswith(path)]
            about: Iterator[Mapping[str, str]] = cycle((*found_there, {}) if mode is GenerationMode.POSITIVE else ({},))

            @seeded(seed)
            @calm
            @given(operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.path_parameters.update(next(about))  # noqa: B023 - asked before the loop goes on
                response = case.call(base_url=url, headers=headers, timeout=PATIENCE_S, allow_redirects=False)
                if said := _fault(case, response):
                    raise AssertionError(f"{said}; asked by: {case.as_curl_command()}"[:2000])

            try:
                ask()
            except AssertionError as error:
                found.append(Finding(operation.label, str(error)))
            except Exception as error:
                if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):  # nothing can be asked in this way
                    raise
    return found


def _document(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    answer = httpx.get(f"{url}/api/v1/openapi.json", headers=headers, trust_env=False)
    document: dict[str, Any] = answer.raise_for_status().json()
    return document


def _without_tuples(value: Any) -> Any:
    """The same, with lists of so many as lists of the first: schemathesis can't read `prefixItems` in an answer."""
    if isinstance(value, dict):
        said = {name: _without_tuples(one) for name, one in value.items()}
        first = said.pop("prefixItems", None)
        return said if first is None else {**said, "items": first[0]}
    return [_without_tuples(one) for one in value] if isinstance(value, list) else value


def _fault(case: Any, response: Any) -> str | None:
    """What is wrong with an answer; None when nothing is."""
    status = response.status_code
    if status >= 500 and status not in UNAVAILABLE:
        return f"answered {status}: {response.text[:300]}"
    if status >= 400 and case.method.upper() != "HEAD":
        return next(_problem_faults(status, response), None)
    if status >= 300:
        return None
    from schemathesis.checks import load_all_checks
    from schemathesis.specs.openapi import checks

    load_all_checks()
    try:
        case.validate_response(response, checks=[checks.response_schema_conformance, checks.content_type_conformance])
    except (AssertionError, BaseExceptionGroup) as error:
        said = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
        return f"{status} is not as described: {said}"
    return None


def _problem_faults(status: int, response: Any) -> Iterator[str]:
    kind = response.headers.get("content-type", "")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind != "application/problem+json":
        yield f"{status} comes as {kind!r}, which is no problem document"
        return
    try:
        body = json.loads(response.text)
    except ValueError:
        yield f"{status} is called a problem document, and is no JSON: {response.text[:300]}"
        return
    if not isinstance(body, dict) or body.get("status") != status or not body.get("title") or not body.get("detail"):
        yield f"{status} says {body}"
