"""Where the gateway may go when it is given a URL, and that it goes where it looked and nowhere else."""

import ipaddress
import socket
from collections.abc import Callable, Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.notify.guard import Blocked, Guard
from simulators.phone import Phone

PUBLIC = "93.184.215.14"


def leads_to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda _host, _port: addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "100.100.100.200", "192.0.0.192", "168.63.129.16", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "198.18.0.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:c0a8:101::",
        "::7f00:1", "::a00:1",
    ],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    with pytest.raises(Blocked, match=r"evil\.example leads to"):
        Guard(resolver=leads_to(address)).target("https://evil.example/hook")


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "017700000001", "127.1", "127.0.1", "0", "2852039166", "0xa9fea9fe",
     "0251.0376.0251.0376", "10.1", "012.0.0.1", "3232235777", "[::ffff:127.0.0.1]", "127.0.0.1.", "localhost."],
)  # fmt: skip
@pytest.mark.parametrize("port", ["", ":8443"])
def test_an_address_inside_is_refused_however_it_is_written(host: str, port: str) -> None:
    """By the system's own resolver, which understands all of these, or knows no such name."""
    with pytest.raises((Blocked, OSError)):
        Guard().target(f"https://{host}{port}/")
    with pytest.raises((Blocked, OSError)):
        Guard(allow_http=True, allow_loopback=True).target(f"http://{host}{port}/")


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "0x7f000001", "127.1", "2852039166", "012.0.0.1"])
def test_of_a_number_as_host_it_is_the_address_that_is_judged(host: str) -> None:
    with pytest.raises(Blocked, match="leads to"):
        Guard().target(f"https://{host}/")


@pytest.mark.parametrize(("port", "is_one"), [("443", True), ("1", True), ("65535", True), ("0", False), ("65536", False),
                                              ("-1", False), ("+443", False), ("4_43", False), ("x", False)])  # fmt: skip
def test_a_port_is_a_number_that_somebody_can_listen_at(port: str, is_one: bool) -> None:
    guard = Guard(resolver=leads_to(PUBLIC))
    if is_one:
        assert guard.target(f"https://chat.example:{port}/").port == int(port)
    else:
        with pytest.raises(Blocked):
            guard.target(f"https://chat.example:{port}/")


def test_one_address_inside_is_enough_to_refuse_them_all() -> None:
    with pytest.raises(Blocked):
        Guard(resolver=leads_to(PUBLIC, "10.0.0.1")).target("https://evil.example/")


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"])
def test_a_public_address_is_gone_to(address: str) -> None:
    target = Guard(resolver=leads_to(address)).target("https://chat.example:8443/hook?x=1")
    assert target == ("https", "chat.example", 8443, (address,))


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "fc00::1", "127.0.0.1"])
def test_a_private_network_can_be_allowed(address: str) -> None:
    assert Guard(allow_private=True, resolver=leads_to(address)).target("https://nas.example/").addresses == (address,)


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "224.0.0.1", "0.0.0.0", "fe80::1", "240.0.0.1"])
def test_what_no_receiver_has_can_not(address: str) -> None:
    with pytest.raises(Blocked):
        Guard(allow_private=True, allow_http=True, allow_loopback=True, resolver=leads_to(address)).target("https://nas.example/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machine_is_gone_to_only_where_the_url_says_so_and_that_is_allowed(host: str) -> None:
    address = "::1" if host == "[::1]" else "127.0.0.1"
    assert Guard(allow_loopback=True, resolver=leads_to(address)).target(f"http://{host}:8080/").port == 8080
    with pytest.raises(Blocked):
        Guard(resolver=leads_to(address)).target(f"https://{host}:8080/")
    with pytest.raises(Blocked, match="this machine itself"):
        Guard(allow_loopback=True, resolver=leads_to(address)).target("https://evil.example/")
    with pytest.raises(Blocked):
        Guard(allow_loopback=True, resolver=leads_to("10.0.0.1")).target("http://localhost/")


def test_http_is_for_who_says_so() -> None:
    with pytest.raises(Blocked, match="use https, or set allow_http"):
        Guard(resolver=leads_to(PUBLIC)).target("http://chat.example/")
    assert Guard(allow_http=True, resolver=leads_to(PUBLIC)).target("http://chat.example/").port == 80


@pytest.mark.parametrize(
    "url",
    ["", "chat.example", "ftp://chat.example/", "file:///etc/passwd", "https://", "https:///x", "https://user:pw@chat.example/",
     "https://chat.example:99999/", "https://[::1/", "https://chat.example/\r\nHost: x", "https://chat.example/ x",
     "https://例え.example/", "https://chat.example/" + 2000 * "x"],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(Blocked):
        Guard(resolver=leads_to(PUBLIC)).target(url)


def test_a_name_that_is_not_found_now_may_be_later() -> None:
    def nothing(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror("no such name")

    with pytest.raises(OSError, match="no such name"):
        Guard(resolver=nothing).target("https://chat.example/")


@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://", "https://[", "https://a:"]))
def test_any_text_is_refused_or_leads_somewhere_public(text: str, start: str) -> None:
    try:
        target = Guard(resolver=leads_to(PUBLIC)).target(start + text)
    except Blocked:
        return
    assert target.scheme == "https"
    assert 0 <= target.port <= 65535
    assert target.host


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address) | st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))
def test_any_address_that_is_gone_to_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        Guard(resolver=leads_to(str(address))).target("https://any.example/")
    except Blocked:
        return
    assert address.is_global or (isinstance(address, ipaddress.IPv6Address) and (address.sixtofour or address.ipv4_mapped))
    assert not address.is_multicast
    assert not address.is_loopback


# ---- where it really goes -------------------------------------------------------------------------------


def test_the_connection_goes_to_the_address_that_was_judged_under_the_urls_own_name() -> None:
    """No second look: the name is one that nobody else could resolve."""
    with Phone() as phone:
        port = int(phone.url.rstrip("/").rsplit(":", 1)[1])
        looked: list[str] = []

        def resolver(host: str, _port: int) -> Sequence[str]:
            looked.append(host)
            return ["127.0.0.1"]

        guard = Guard(allow_http=True, allow_private=True, resolver=resolver)
        with guard.client(5) as client:
            answer = client.post(f"http://only-here.invalid:{port}/", json={"id": "n-1"})
        assert (answer.status_code, looked, [one.id for one in phone.received]) == (200, ["only-here.invalid"], ["n-1"])
        assert answer.request.headers["host"] == f"only-here.invalid:{port}"


def test_a_name_that_turns_inside_between_two_requests_is_not_followed() -> None:
    with Phone() as phone:
        port = int(phone.url.rstrip("/").rsplit(":", 1)[1])
        answers = iter([["127.0.0.1"], ["169.254.169.254"]])
        guard = Guard(allow_http=True, allow_private=True, resolver=lambda _h, _p: next(answers))
        with guard.client(5) as client:
            client.post(f"http://turns.invalid:{port}/", json={"id": "n-1"})
            with pytest.raises(Blocked):
                client.post(f"http://turns.invalid:{port}/", json={"id": "n-2"})
        assert [one.id for one in phone.received] == ["n-1"]


def test_a_redirect_is_an_answer_and_not_a_way() -> None:
    with Phone() as phone:
        phone.answer(302)
        with Guard(allow_loopback=True).client(5) as client:
            assert client.get(phone.url + "nothing").status_code == 404
            assert client.post(phone.url, json={"id": "n-1"}).status_code == 302


@pytest.mark.parametrize("addresses", [("127.0.0.2", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")])
def test_the_next_address_is_tried_when_nobody_listens_at_the_first(addresses: tuple[str, ...]) -> None:
    with Phone() as phone:
        port = int(phone.url.rstrip("/").rsplit(":", 1)[1])
        guard = Guard(allow_http=True, allow_private=True, resolver=leads_to(*addresses))
        with guard.client(5) as client:
            assert client.post(f"http://two.invalid:{port}/", json={"id": "n-1"}).status_code == 200
        alone = Guard(allow_http=True, allow_private=True, resolver=leads_to("127.0.0.2"))
        with alone.client(5) as client, pytest.raises(httpx.ConnectError):
            client.get(f"http://one.invalid:{port}/")


def test_a_certificate_must_be_for_the_urls_own_name(tls_server: tuple[int, httpx.Client]) -> None:
    """The judged address is in the connection, but the name is what TLS asks for and checks."""
    port, client = tls_server
    assert client.get(f"https://hook.invalid:{port}/").text == "hook.invalid"
    with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
        client.get(f"https://other.invalid:{port}/")
