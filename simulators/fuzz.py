"""The web side asked by who means no good: every operation of the OpenAPI document, with what it describes and what it does not.

`fuzz(url, token, examples)` asks a running gateway and gives back what is wrong with its answers: an error of the server's own, a
refusal that is no problem document, an answer that is not as described. The questions come from the seed, so that what was found
is found again.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

ENDLESS = "/api/v1/stream"
"""Its answer does not end, so there is nothing to check it against."""
UNAVAILABLE = frozenset((501, 503, 507))
"""What a gateway may say of itself that lacks a part; an answer in its own right, with a problem document."""
PATIENCE_S = 20.0


class Finding(NamedTuple):
    """One operation that answers wrongly."""

    operation: str
    what: str


def fuzz(url: str, token: str | None, examples: int, seed: int = 1, document: dict[str, Any] | None = None) -> list[Finding]:
    """`examples` of each kind (as described, and not) an operation. `token`: of whoever asks; None: nobody's.
    `document`: what is described; asked of the gateway without.

    ImportError without schemathesis, which stands in `requirements/dev.txt` only.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis import GenerationMode

    auth = {"Authorization": f"Bearer {token}"} if token else {}
    schema = schemathesis.openapi.from_dict(document or _document(url, token)).exclude(path=ENDLESS)
    # Small documents, many questions: the time goes into asking.
    calm = settings(
        max_examples=examples, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    found: list[Finding] = []
    for one in schema.get_all_operations():
        operation: Any = one.ok()  # type: ignore[union-attr]  # a document that can't be read raises here
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seeded(seed)
            @calm
            @given(operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                response = case.call(base_url=url, headers=auth, timeout=PATIENCE_S, allow_redirects=False)
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


def _document(url: str, token: str | None) -> dict[str, Any]:
    answer = httpx.get(f"{url}/api/v1/openapi.json", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    document: dict[str, Any] = answer.raise_for_status().json()
    return document


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
    body = json.loads(response.text)
    if body.get("status") != status or not body.get("title") or not body.get("detail"):
        yield f"{status} says {body}"
