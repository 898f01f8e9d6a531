"""Every operation of the OpenAPI document asked by a stranger with imagination: no answer is an error of the gateway's own."""

from pathlib import Path
from unittest.mock import MagicMock

from fastapi import FastAPI, Response

from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.feed import Feed
from gateway.media import MediaShelf
from gateway.nodes.listener import create_node_app
from gateway.store import SqliteStore
from gateway.telemetry import Telemetry
from simulators.fuzz import bearer, everything, fuzz
from tests.gateway.api import policed
from tests.gateway.api.conftest import Gateway
from tests.gateway.api.served import served
from tests.gateway.nodes.boxes import town as nodes_town

KNOWN = {
    "/api/v1/alerts/{id}": {"id": "a-mine"}, "/api/v1/pages/{id}": {"id": "p-mine"}, "/api/v1/deliveries/{id}": {"id": "n-mine"},
    "/api/v1/captures/{id}": {"id": policed.DOSSIER}, "/api/v1/media/{sha256}": {"sha256": policed.PICTURE},
    "/api/v1/watched/{id}": {"id": policed.HANA}, "/api/v1/searches/{id}": {"id": policed.CASE},
    "/api/v1/contacts/{id}": {"id": "x1"}, "/api/v1/accounts/{id}": {"id": "1" * 16}, "/api/v1/jobs/{id}": {"id": policed.JOB},
    "/api/v1/nodes/{node}": {"node": policed.NODE}, "/api/v1/areas/{area}": {"area": "square"},
    "/api/v1/traps/{node}": dict(zip(("node", "device"), policed.TRAP, strict=True)),
}  # fmt: skip
"""What there is in the town."""
FEW = 2
"""Questions of each kind an operation, one of them about what there is; `make soak ARGS="--fuzz 100"` asks more."""


def test_what_is_wrong_with_an_answer_is_found() -> None:
    """Else the others here would prove nothing."""
    app = FastAPI()
    app.state.feed = Feed()

    @app.get("/fails")
    def fails() -> int:
        raise RuntimeError("a fault of ours")

    @app.get("/refuses")
    def refuses() -> Response:
        return Response("no", 404, media_type="text/plain")

    @app.get("/broken")
    def broken() -> Response:
        return Response("no", 404, media_type="application/problem+json")

    @app.get("/differs", responses={200: {"content": {"application/json": {"schema": {"type": "integer"}}}}})
    def differs() -> Response:
        return Response('"one"', media_type="application/json")

    @app.get("/right")
    def right() -> int:
        return 1

    with served(app) as port:
        found = dict(fuzz(f"http://127.0.0.1:{port}", None, 1, document=app.openapi()))
    assert sorted(found) == ["GET /broken", "GET /differs", "GET /fails", "GET /refuses"]
    assert "answered 500" in found["GET /fails"]
    assert "no problem document" in found["GET /refuses"]
    assert "no JSON" in found["GET /broken"]
    assert "not as described" in found["GET /differs"]


def test_whatever_an_officer_asks_the_answer_is_as_described_or_a_problem_document(tmp_path: Path) -> None:
    """Of a gateway that has every part, in a browser: behind no operation it lacks something that would have to answer."""
    with everything(tmp_path, policed.fill) as gateway:
        assert fuzz(gateway.url, gateway.officer, FEW, known=KNOWN) == []
        assert gateway.program.running


def test_so_it_is_for_who_may_only_look(gateway: Gateway) -> None:
    town = policed.Town(gateway)
    with served(town.app) as port:
        assert fuzz(f"http://127.0.0.1:{port}", bearer(policed.bearer(policed.ACTORS["viewer"])), FEW) == []


def test_so_is_whatever_nodes_are_answered(tmp_path: Path) -> None:
    with nodes_town(tmp_path) as made:
        deps = Deps(
            state=made.state, store=MagicMock(SqliteStore), feed=Feed(), tokens=Tokens({}),
            media=MediaShelf(tmp_path / "media", made.state, lambda: made.now_us),
            telemetry=Telemetry(), now_us=lambda: made.now_us, health=dict,
        )  # fmt: skip
        app = create_node_app(deps, made.care)
        with served(app) as port:
            assert fuzz(f"http://127.0.0.1:{port}", None, 20, document=app.openapi()) == []
