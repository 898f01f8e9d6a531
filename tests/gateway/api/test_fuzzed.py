"""Every operation of the OpenAPI document asked by a stranger with imagination: no answer is an error of the gateway's own."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.api import Deps, Tokens, create_app
from gateway.feed import Feed
from gateway.media import MediaShelf
from gateway.nodes.listener import create_node_app
from gateway.policy import Actor
from gateway.telemetry import Telemetry
from simulators.fuzz import fuzz
from tests.gateway.api.conftest import Gateway
from tests.gateway.api.office import Office
from tests.gateway.api.policed import Town
from tests.gateway.api.served import served
from tests.gateway.nodes.boxes import town as nodes_town

WHO = {
    "operator-token-for-the-fuzzing": Actor("tanaka", frozenset({"operator", "officer"})),
    "viewer-token-for-the-fuzzing-1": Actor("board", frozenset({"viewer"})),
}


@pytest.mark.parametrize(("token", "examples"), [(token, 3) for token in WHO], ids=["operator and officer", "viewer"])
def test_whatever_is_asked_the_answer_is_as_described_or_a_problem_document(
    gateway: Gateway, tmp_path: Path, token: str, examples: int
) -> None:
    desk = Office(gateway, tmp_path / "people").desk
    town = Town(gateway)
    deps = replace(town.gateway.deps, tokens=Tokens(WHO), desk=desk)
    with served(create_app(deps)) as port:
        assert fuzz(f"http://127.0.0.1:{port}", token, examples) == []


def test_so_is_whatever_nodes_are_answered(tmp_path: Path) -> None:
    with nodes_town(tmp_path) as made:
        deps = Deps(
            state=made.state, store=None, feed=Feed(), tokens=Tokens({}),
            media=MediaShelf(tmp_path / "media", made.state, lambda: made.now_us),
            telemetry=Telemetry(), now_us=lambda: made.now_us, health=dict,
        )  # fmt: skip
        app = create_node_app(deps, made.care)
        with served(app) as port:
            assert fuzz(f"http://127.0.0.1:{port}", None, 20, document=app.openapi()) == []
