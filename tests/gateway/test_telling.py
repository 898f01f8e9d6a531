"""What a message offers besides its words: the map of the place, and the office's telephone for who is asked to go."""

from zoneinfo import ZoneInfo

from gateway.alerting.escalation import Tell
from gateway.alerting.lifecycle import Alert
from gateway.contacts.person import Address, Person
from gateway.deployments import Deployment, Deployments
from gateway.notify.message import Message
from gateway.telling import About, Teller

SATO = Person("sato", "佐藤", "ja", (Address("a", "line", "U1"),))
NOW_US = 1_780_434_720_000_000


def told(**deployed: object) -> Message:
    place = Deployment.model_validate(
        {"node": "n", "device": "trap-1", "kind": "trap", "place": "北尾根", "label": "3番", **deployed}
    )
    return said(ASKED, place)


def said(tell: Tell, place: Deployment, facts: str = "{}") -> Message:
    teller = Teller(Deployments([place]), ZoneInfo("Asia/Tokyo"), phone="050-0000-0001", visit_url=visit_url)
    alert = Alert(
        "al", "sprung", "trap", "critical", "n", "trap-1", "1", "firing", NOW_US, False, "trap_sprung", facts, fired_us=NOW_US
    )
    return teller.message("id", SATO, tell, About("page", "trap", "critical", NOW_US, [alert]), NOW_US)


def visit_url(node: str, device: str, printed: int) -> str:
    return f"https://gateway.example.jp/v/{node}/{device}/{printed}"


ASKED = Tell("sato", "alert", "alert", "k", asks=True)


def test_who_is_asked_to_go_gets_the_map_and_whom_to_ring() -> None:
    links = [(link.label, link.url) for link in told(at=[36.1046, 140.0846]).links]
    assert links == [("地図", "https://maps.gsi.go.jp/#16/36.104600/140.084600/"), ("電話する", "tel:050-0000-0001")]


def test_where_nobody_entered_a_position_there_is_no_map() -> None:
    assert [link.label for link in told().links] == ["電話する"]


TRAP = Deployment(node="n", device="trap-1", kind="trap", place="北尾根", label="3番", qr=2)


def test_who_is_asked_what_came_of_it_can_record_the_visit() -> None:
    asked = said(Tell("sato", "result", "page.result", "k", asks=True), TRAP)
    assert ("見回りを記録", "https://gateway.example.jp/v/n/trap-1/2") in [(link.label, link.url) for link in asked.links]
    assert "見回りを記録" not in [link.label for link in said(ASKED, TRAP).links], "nobody has been there yet"


def test_who_hears_of_papers_that_lack_something_can_fill_them_in() -> None:
    told = said(ASKED, TRAP, '{"capture": "c-1", "missing": ["tail"]}')
    assert ("捕獲の記録", "https://gateway.example.jp/v/n/trap-1/2/c/c-1") in [(link.label, link.url) for link in told.links]
