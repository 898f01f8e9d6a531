"""A town in which there are two of everything: one that is theirs, of whoever comes in, and one that is somebody else's."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Connection, Table, insert

from gateway.api.answer import AnswerPage
from gateway.api.app import create_app
from gateway.api.tokens import Tokens
from gateway.deployments import Deployment, Deployments
from gateway.notify.links import Links
from gateway.policy import ROLES, Actor
from gateway.relations import Relations
from gateway.state import tables
from tests.gateway.api.conftest import DEFAULTS, MINUTE_US, NOW_US, Gateway
from tests.gateway.paged import ZONE

NODE, OTHER_NODE = "kitayama-03", "minami-01"
TRAP, OTHER_TRAP = (NODE, "trap-11"), (OTHER_NODE, "trap-12")
CAMERA, OTHER_CAMERA = (NODE, "cam-02"), (OTHER_NODE, "cam-03")
HANA, TARO = "ab" * 8, "cd" * 8
CASE, OTHER_CASE = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
DOSSIER, OTHER_DOSSIER = "33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
PICTURE, OTHER_PICTURE = "a" * 64, "b" * 64
JOB = "5" * 16
HOUR_US = 60 * MINUTE_US

ACTORS: Mapping[str, Actor] = {
    "operator": Actor("op", frozenset({"operator"})),
    "officer": Actor("tanaka", frozenset({"officer"})),
    "installer": Actor("kobayashi", frozenset({"installer"}), account="1" * 16),
    "farmer": Actor("contact:f1", frozenset({"farmer"}), "2" * 16, "f1", frozenset({"farmers"})),
    "hunter": Actor("contact:h1", frozenset({"hunter"}), "3" * 16, "h1", frozenset({"farmers", "others"})),
    "family": Actor("contact:k1", frozenset({"family"}), "4" * 16, "4" * 16, frozenset({"family-hana"})),
    "volunteer": Actor("contact:v1", frozenset({"volunteer"}), "6" * 16, "v1", frozenset({"volunteers"})),
    "viewer": Actor("board", frozenset({"viewer"})),
    "node": Actor(NODE, frozenset({"node"})),
}
"""Of each role one who has the relation that it asks for."""
assert ACTORS.keys() == ROLES.keys()
STRANGERS: Mapping[str, Actor] = {
    role: Actor(f"stranger {role}", frozenset({role}), "9" * 16, "s9", frozenset({"nobodys"})) for role in ROLES
}
"""Of each role one who is tied to nothing here."""
NEW = Actor("new", frozenset({"role-that-came-later"}), "1" * 16, "f1", frozenset({"farmers", "family-hana"}))


LINKS = Links("https://gateway.example", bytes(range(32)))


def _takes_none(*_: object) -> str | None:
    raise AssertionError("nobody answers a message here")


def bearer(actor: Actor) -> str:
    """The token by which they come in here."""
    return f"token-of-{actor.name.replace(' ', '-')}-for-tests".replace(":", "-")


class Town:
    """The web side, and who comes in."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        gateway.deps = deps = replace(
            gateway.deps,
            deployments=Deployments([
                Deployment(node=NODE, device="trap-11", kind="trap", place="北尾根", label="3番", groups=["farmers"]),
                Deployment(node=NODE, device="cam-02", kind="camera", place="北尾根", groups=["farmers"]),
                Deployment(node=OTHER_NODE, device="trap-12", kind="trap", place="南沢", label="1番", groups=["hunters"]),
                Deployment(node=OTHER_NODE, device="cam-03", kind="camera", place="南沢", groups=["hunters"]),
            ]),
            taken_names=frozenset({"watched"}),
            answer_page=AnswerPage(gateway.state, LINKS, ZONE, lambda: gateway.now_us, lambda _, id_: id_, _takes_none),
            tokens=Tokens({bearer(one): one for one in (*ACTORS.values(), *STRANGERS.values(), NEW)}),
        )  # fmt: skip
        world = Relations(deps.state, deps.deployments, deps.enrolled, lambda: gateway.now_us)
        gateway.deps = replace(deps, world=world)
        with gateway.state.write() as connection:
            fill(connection)
            deps.enrolled.read(connection)
        self.app = create_app(gateway.deps)

    def client(self, actor: Actor | str) -> TestClient:
        """As somebody; a role stands for the one of it who is tied to what is theirs."""
        who = ACTORS[actor] if isinstance(actor, str) else actor
        return TestClient(self.app, headers={"Authorization": f"Bearer {bearer(who)}"}, raise_server_exceptions=False)

    def get(self, actor: Actor | str, path: str) -> Any:
        """What they read there."""
        answer = self.client(actor).get(f"/api/v1/{path}")
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Changes what is known."""
        with self.gateway.state.write() as connection:
            yield connection


def _add(connection: Connection, table: Table, **values: Any) -> None:
    defaults = DEFAULTS[table.name](NOW_US) if table.name in DEFAULTS else {}
    connection.execute(insert(table).values({**defaults, **values}))


def fill(connection: Connection) -> None:
    """What there is in it, rights aside."""
    for id_, family in ((HANA, "family-hana"), (TARO, "family-taro")):
        _add(connection, tables.watched, id=id_, name="花子" if id_ == HANA else "太郎", family=family,
             homes=json.dumps([f"{NODE}/tags"]), created_us=0, created_by="test")  # fmt: skip
    for id_, group in (("x1", "farmers"), ("k1", "family-hana")):
        _add(connection, tables.contacts, id=id_, name="名前", language="ja", created_us=0, created_by="test")
        _add(connection, tables.memberships, team=group, contact=id_)
    _things(connection, "mine", NODE, "trap-11", "cam-02", PICTURE, DOSSIER)
    _things(connection, "other", OTHER_NODE, "trap-12", "cam-03", OTHER_PICTURE, OTHER_DOSSIER)
    for name, id_, case in (("hana", HANA, CASE), ("taro", TARO, OTHER_CASE)):
        _alert(connection, name, "watched", id_, kind="watched", summary="left home")
        helpers = f"help-{name}"
        _page(connection, helpers, kind="search_help")
        _add(connection, tables.search_cases, id=case, watched=id_, state="open", reason="散歩", opened_us=NOW_US, opened_by="k1",
             step=0, renewed_us=NOW_US, cursor=0, helpers_page=helpers)  # fmt: skip
        _add(connection, tables.notifications, id=f"n-{helpers}", alert=None, page=helpers,
             contact="v1" if name == "hana" else "v2")  # fmt: skip
        _add(connection, tables.events, node=NODE, device="cam-02", type="tag_seen", class_="sighting", epoch=id_,
             body=json.dumps({"tag": f"tag-of-{name}"}))  # fmt: skip
    _add(connection, tables.accounts, id="1" * 16, name="小林", roles="installer", created_us=0, created_by="test")
    _add(connection, tables.jobs, id=JOB, account="1" * 16, label="北山", from_us=NOW_US - HOUR_US, until_us=NOW_US + HOUR_US,
         created_us=0, created_by="test")  # fmt: skip
    _add(connection, tables.job_nodes, job=JOB, node=NODE)


def _things(connection: Connection, name: str, node: str, trap: str, camera: str, sha256: str, dossier: str) -> None:
    _add(connection, tables.nodes, node=node)
    for device, kind in ((trap, "reed_trap"), (camera, "trail_camera")):
        _add(connection, tables.devices, node=node, device=device, kind=kind)
        _add(connection, tables.latest, node=node, device=device)
    _add(connection, tables.events, node=node, device=trap)
    _alert(connection, name, node, trap)
    visit = dossier[:-1] + "0"
    _add(connection, tables.visits, id=visit, node=node, device=trap, at_us=NOW_US, who=f"who-{name}", via="qr", result="capture",
         recorded_us=NOW_US)  # fmt: skip
    _add(connection, tables.captures, id=dossier, node=node, device=trap, visit=visit, opened_us=NOW_US)
    _add(connection, tables.pictures, sha256=sha256, node=node, device=camera, content="animal", confirmed_content="no_animal",
         confirmed_us=NOW_US, confirmed_by=f"who-{name}")  # fmt: skip
    _add(connection, tables.commands, id=f"c-{name}", node=node, name="identify", payload="{}", issued_us=0, issued_by="x",
         expires_us=1, state="done")  # fmt: skip


def _alert(connection: Connection, name: str, node: str, device: str, **more: Any) -> None:
    _add(connection, tables.alerts, id=f"a-{name}", opening=name, node=node, device=device, **more)
    _page(connection, f"p-{name}", kind=more.get("kind", "trap"))
    _add(connection, tables.page_alerts, page=f"p-{name}", alert=f"a-{name}", joined_us=NOW_US)
    _add(connection, tables.notifications, id=f"n-{name}", alert=f"a-{name}", page=f"p-{name}", contact=f"told-{name}")


def _page(connection: Connection, id_: str, kind: str) -> None:
    _add(connection, tables.pages, id=id_, route="r", group_key=id_, severity="critical", kind=kind, state="asking", needed=1,
         step=1, opened_us=NOW_US, version=1)  # fmt: skip
