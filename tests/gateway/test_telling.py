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
    teller = Teller(Deployments([place]), ZoneInfo("Asia/Tokyo"), phone="050-0000-0001")
    alert = Alert("al", "sprung", "trap", "critical", "n", "trap-1", "1", "firing", NOW_US, False, "trap_sprung", fired_us=NOW_US)
    return teller.message("id", SATO, ASKED, About("page", "trap", "critical", NOW_US, [alert]), NOW_US)


ASKED = Tell("sato", "alert", "alert", "k", asks=True)


def test_who_is_asked_to_go_gets_the_map_and_whom_to_ring() -> None:
    links = [(link.label, link.url) for link in told(at=[36.1046, 140.0846]).links]
    assert links == [("地図", "https://maps.gsi.go.jp/#16/36.104600/140.084600/"), ("電話する", "tel:050-0000-0001")]


def test_where_nobody_entered_a_position_there_is_no_map() -> None:
    assert [link.label for link in told().links] == ["電話する"]
