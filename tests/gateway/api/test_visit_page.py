"""What the QR at a trap opens, as a phone without JavaScript sees it: forms that really record, nothing for who forges a link."""

import hashlib
import io
import re
import uuid
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.api.answer import AnswerPage
from gateway.deployments import Deployment, Deployments
from gateway.notify.links import Links
from gateway.state import tables
from tests.gateway.api.conftest import BEARER, MINUTE_US, Gateway

LINKS = Links("https://gateway.example", b"k" * 32)
HERE = LINKS.visit_url("kitayama-03", "trap-11").removeprefix("https://gateway.example")


@pytest.fixture
def phone(gateway: Gateway) -> TestClient:
    """Somebody's phone: no token."""
    answer = AnswerPage(
        gateway.state, LINKS, ZoneInfo("Asia/Tokyo"), lambda: gateway.now_us, lambda _, name: name, lambda *_: None
    )
    deps = replace(gateway.deps, answer_page=answer)
    return Gateway(deps, gateway.state, gateway.store).client(None)


def rows(gateway: Gateway, table: Any) -> list[Any]:
    with gateway.state.read() as connection:
        return list(connection.execute(table.select()))


def jpeg(shade: int, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (60 * shade % 256, 0, 0)).save(out, kind)
    return out.getvalue()


def form(result: str, id_: str = "", **more: str) -> dict[str, str]:
    return {"id": id_ or str(uuid.uuid4()), "result": result, **more}


def caught(phone: TestClient) -> str:
    """Where the dossier of a capture is."""
    page = phone.post(HERE, data=form("capture")).text
    found = re.search(rf'href="({re.escape(HERE)}/c/[^"]+)"', page)
    assert found is not None
    return found[1]


def test_the_page_says_how_the_trap_stands_and_records_nothing(gateway: Gateway, phone: TestClient) -> None:
    page = phone.get(HERE)
    assert page.status_code == 200
    assert "わなの今の様子は分かりません。" in page.text
    assert "script" not in page.text
    assert len(page.content) < 30_000
    gateway.insert(tables.latest, received_us=gateway.now_us - MINUTE_US)
    assert "わなは作動していません（最後の通信は1分前）。" in phone.get(HERE).text
    gateway.insert(tables.latest, metric="heartbeat", value=1.0)
    assert rows(gateway, tables.visits) == []


def test_a_button_records_the_visit_and_says_so(gateway: Gateway, phone: TestClient) -> None:
    page = phone.post(HERE, data=form("set", who="Example Hanako", note="quiet"))
    assert (page.status_code, "見回りを記録しました" in page.text) == (200, True)
    [row] = rows(gateway, tables.visits)
    assert (row.via, row.result, row.who, row.note) == ("qr", "set", "Example Hanako", "quiet")
    assert [one.type for one in rows(gateway, tables.events)] == ["trap_visited"]
    assert "Example" not in phone.get(HERE).text, "the next one at the trap reads no name"


def test_a_form_sent_twice_is_one_visit(gateway: Gateway, phone: TestClient) -> None:
    again = form("set")
    assert {phone.post(HERE, data=again).status_code for _ in range(3)} == {200}
    assert len(rows(gateway, tables.visits)) == 1


def test_the_link_to_print_is_the_one_that_opens(phone: TestClient) -> None:
    said = phone.get("/api/v1/traps/kitayama-03/trap-11/visit-link", headers=BEARER["operator"]).json()
    assert said["url"] == f"https://gateway.example{HERE}"
    assert said["svg"].startswith("<svg")
    assert phone.get("/api/v1/traps/kitayama-03/trap-12/visit-link", headers=BEARER["operator"]).status_code == 404
    assert phone.get("/api/v1/traps/kitayama-03/trap-11/visit-link", headers=BEARER["viewer"]).status_code == 403


@pytest.mark.parametrize("wrong", ["token", "device", "short"])
def test_a_link_that_is_none_of_ours_opens_nothing(gateway: Gateway, phone: TestClient, wrong: str) -> None:
    other = {"token": HERE[:-2] + "AA", "device": HERE.replace("trap-11", "trap-12"), "short": HERE[:-5]}[wrong]
    for answer in (
        phone.get(other), phone.post(other, data=form("set")), phone.get(f"{other}/c/{uuid.uuid4()}"),
        phone.post(f"{other}/c/{uuid.uuid4()}/photos", files={"photo": jpeg(1)}, data={"item": "tail"}),
    ):  # fmt: skip
        assert (answer.status_code, "このリンクは使えません" in answer.text) == (404, True)
    assert rows(gateway, tables.visits) == rows(gateway, tables.media) == []


def test_a_form_that_says_nothing_usable_is_refused_and_what_was_typed_stays(gateway: Gateway, phone: TestClient) -> None:
    for bad in (form("caught", who="<b>x"), form("set", id_="7", who="<b>x"), {"who": "<b>x"}):
        page = phone.post(HERE, data=bad)
        assert (page.status_code, "記録できませんでした" in page.text, "&lt;b&gt;x" in page.text) == (422, True, True)
    assert rows(gateway, tables.visits) == []


def test_a_photograph_of_the_qr_floods_nothing(gateway: Gateway, phone: TestClient) -> None:
    answers = [phone.post(HERE, data=form("set")).status_code for _ in range(21)]
    assert answers == [200] * 20 + [429]
    gateway.now_us += 61 * MINUTE_US
    assert phone.post(HERE, data=form("set")).status_code == 200


def test_a_capture_leads_to_its_dossier_which_takes_photos_and_what_the_animal_was(gateway: Gateway, phone: TestClient) -> None:
    here = caught(phone)
    assert "まだ足りないもの：動物の種類、性別" in phone.get(here).text
    for shade, item in enumerate(("whole", "board", "tail")):
        page = phone.post(f"{here}/photos", files={"photo": ("a.jpg", jpeg(shade))}, data={"item": item})
        assert (page.status_code, "保存しました。" in page.text) == (200, True)
    seen = re.search(r'name="seen" value="(\w+)"', phone.get(here).text)
    assert seen is not None
    fields = {"species": "イノシシ", "sex": "male", "weight_kg": "42,5", "disposal": "埋設", "note": "", "seen": seen[1]}
    assert "全部そろいました" in phone.post(here, data=fields).text
    [row] = rows(gateway, tables.captures)
    assert (row.species, row.weight_kg, row.completed_us) == ("イノシシ", 42.5, None), "the office closes it"
    assert phone.post(here, data={**fields, "species": "シカ"}).status_code == 409, "somebody else has changed it since"


def test_the_same_photo_for_another_capture_is_refused_in_plain_words(gateway: Gateway, phone: TestClient) -> None:
    first, second = caught(phone), caught(phone)
    photo = {"photo": ("a.jpg", jpeg(1))}
    assert phone.post(f"{first}/photos", files=photo, data={"item": "whole"}).status_code == 200
    refused = phone.post(f"{second}/photos", files=photo, data={"item": "whole"})
    assert (refused.status_code, "この写真はもう使われています" in refused.text) == (409, True)
    assert first.rpartition("/")[2] not in refused.text


def test_what_is_no_photo_is_refused_whatever_it_is_called(gateway: Gateway, phone: TestClient) -> None:
    here = caught(phone)
    for bad in (b"<script>", b"", b"GIF89a"):
        page = phone.post(f"{here}/photos", files={"photo": ("a.jpg", bad, "image/jpeg")}, data={"item": "whole"})
        assert page.status_code == 422
    assert phone.post(f"{here}/photos", files={"photo": jpeg(1)}, data={"item": "head"}).status_code == 422
    assert phone.post(f"{here}/photos", content=b"x" * 99, headers={"Content-Type": "multipart/form-data"}).status_code == 422
    assert rows(gateway, tables.media) == []


def test_a_photo_whose_first_half_somebody_else_sent_wrongly_is_taken_all_the_same(gateway: Gateway, phone: TestClient) -> None:
    photo = jpeg(9)
    gateway.deps.media.append(hashlib.sha256(photo).hexdigest(), 0, len(photo), b"no picture at all")
    page = phone.post(f"{caught(phone)}/photos", files={"photo": ("a.jpg", photo)}, data={"item": "tail"})
    assert "保存しました。" in page.text


@pytest.mark.parametrize("weight", ["heavy", "nan", "-3", "1e9"])
def test_a_weight_that_is_none_is_refused(phone: TestClient, weight: str) -> None:
    page = phone.post(caught(phone), data={"weight_kg": weight})
    assert (page.status_code, "数字で入れてください" in page.text) == (422, True)


def test_after_a_week_or_from_another_trap_a_dossier_is_not_shown(gateway: Gateway, phone: TestClient) -> None:
    here = caught(phone)
    gateway.now_us += 7 * 24 * 60 * MINUTE_US
    assert phone.get(here).status_code == phone.post(here, data={"note": "x"}).status_code == 404


def test_a_body_that_is_too_long_is_refused_before_it_is_read(phone: TestClient) -> None:
    too_long = {"Content-Length": str(17 * 1024 * 1024)}
    assert phone.post(f"{HERE}/c/{uuid.uuid4()}/photos", headers=too_long).status_code == 413
    assert phone.post(HERE, headers={"Content-Length": "70000"}).status_code == 413


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300), st.sampled_from(["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "", "é"])
)
def test_whatever_is_sent_is_answered_plainly(phone: TestClient, body: bytes, kind: str) -> None:
    for path in (HERE, f"{HERE}/c/{uuid.uuid4()}", f"{HERE}/c/{uuid.uuid4()}/photos"):
        answer = phone.post(path, content=body, headers={"Content-Type": kind.encode("latin-1")})
        assert answer.status_code < 500


def test_a_printed_code_that_was_lost_opens_nothing_when_another_was_printed(gateway: Gateway, phone: TestClient) -> None:
    assert phone.get(HERE).status_code == 200
    trap = Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番", qr=2)
    answer = AnswerPage(
        gateway.state, LINKS, ZoneInfo("Asia/Tokyo"), lambda: gateway.now_us, lambda _, name: name, lambda *_: None
    )
    after = gateway.client(None, answer_page=answer, deployments=Deployments([trap]))
    assert after.get(HERE).status_code == 404
    assert after.post(HERE, data=form("set")).status_code == 404
    assert rows(gateway, tables.visits) == []
    link = gateway.client(answer_page=answer, deployments=Deployments([trap])).get("/api/v1/traps/kitayama-03/trap-11/visit-link")
    assert after.get(link.json()["url"].removeprefix("https://gateway.example")).status_code == 200


def test_a_photograph_of_the_code_does_not_fill_the_disk(
    gateway: Gateway, phone: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.visit_page.MOST_PHOTOS_A_DAY", 2)
    said = []
    for shade in range(3):
        answer = phone.post(
            f"{caught(phone)}/photos", data={"item": "other"}, files={"photo": ("a.jpg", jpeg(shade))}, follow_redirects=False
        )
        said.append(answer.status_code)
    assert said == [303, 303, 409]
    assert len(rows(gateway, tables.capture_photos)) == 2
