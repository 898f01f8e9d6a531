"""Where the gateway may go when it is given a URL: never into its own machine or network, unless the configuration says so.

A name is resolved once, every address it has is judged, and the connection goes to an address that was judged: a second answer
of a hostile name server is never asked for. Redirects are not followed. What comes from outside (a phone's push subscription)
passes the strictest guard; for a URL of the configuration the operator can open it.
"""

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

MOST_HOSTS = 32
MOST_ADDRESSES = 3
LONGEST_URL = 2000

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host, as text. OSError where it has none."""

_COMPATIBLE = ipaddress.ip_network("::/96")  # IPv4 inside IPv6 as of old: nobody is reached so
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Where clouds answer with the machine's own keys. 169.254.169.254 is link-local, and refused as that.
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


class Blocked(Exception):
    """This URL may not be gone to; the text says why, and what would allow it."""


class Target(NamedTuple):
    """A URL that may be gone to, and where it leads."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]
    """All judged; connect to one of these and to nothing else."""


def resolve(host: str, port: int) -> Sequence[str]:
    """As the system does."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Guard:
    """Judges URLs. Without arguments: https to public addresses, and nothing else."""

    def __init__(
        self,
        *,
        allow_http: bool = False,
        allow_private: bool = False,
        allow_loopback: bool = False,
        resolver: Resolve = resolve,
    ) -> None:
        """`allow_private`: addresses of private networks too. `allow_loopback`: this machine, where the URL itself says so."""
        self._allow_http, self._allow_private, self._allow_loopback = allow_http, allow_private, allow_loopback
        self._resolve = resolver

    def target(self, url: str) -> Target:
        """Where the URL leads. Blocked when it may not be gone to, OSError when its host can't be found now."""
        if len(url) > LONGEST_URL or any(not "!" <= one <= "~" for one in url):
            raise Blocked("it is no URL of at most 2000 plain characters")
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), (parts.hostname or ""), parts.port
        except ValueError:
            raise Blocked("it is no URL") from None
        if scheme not in ("http", "https") or not host or "@" in parts.netloc or port == 0:
            raise Blocked("it is not https://host/...")
        return self._target(scheme, host, port if port is not None else (443 if scheme == "https" else 80))

    def _target(self, scheme: str, host: str, port: int) -> Target:
        says_local = self._allow_loopback and host.lower() in _LOCAL_NAMES
        if scheme != "https" and not self._allow_http and not says_local:
            raise Blocked("it is http, which anybody on the way can read: use https, or set allow_http")
        try:
            addresses = tuple(self._resolve(host, port))
        except UnicodeError:
            raise Blocked("its host is no name") from None
        if not addresses:
            raise OSError(f"{host} has no address")
        for address in addresses:
            if reason := self._fault(address, says_local=says_local):
                raise Blocked(f"{host} leads to {reason}")
        return Target(scheme, host, port, addresses)

    def _fault(self, address: str, *, says_local: bool) -> str | None:
        try:
            ip = _inner(ipaddress.ip_address(address))
        except ValueError:
            return "no IP address"
        if ip.is_loopback:
            return None if says_local or self._allow_private else "this machine itself"
        if ip in _METADATA or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _COMPATIBLE:
            return "an address that no receiver has"
        if not ip.is_global:
            return None if self._allow_private and not ip.is_reserved else "a private network: set allow_private if it should"
        return None

    def client(self, timeout_s: float) -> httpx.Client:
        """Goes where this guard lets it. Redirects are answers like any other. Blocked comes out of its requests."""
        return httpx.Client(transport=_Guarded(self), timeout=timeout_s, follow_redirects=False, trust_env=False)


def _inner(ip: Ip) -> Ip:
    """The IPv4 address that an IPv6 one carries, where a router would go there."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        carried = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        return carried or ip
    return ip


class _Guarded(httpx.BaseTransport):
    """Connects to the judged address under the URL's own name: in `Host`, in TLS' SNI, and in what the certificate must say."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._lock = threading.Lock()
        # One pool a host: a kept TLS connection was proved for one name, and pools go by address alone.
        self._pools: dict[tuple[str, str, int], httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request, to the first judged address that takes the connection."""
        target = self._guard.target(str(request.url))
        pool = self._pool(target)
        *others, last = target.addresses[:MOST_ADDRESSES]
        for address in others:
            try:
                return pool.handle_request(_to(request, target, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent yet
        return pool.handle_request(_to(request, target, last))

    def _pool(self, target: Target) -> httpx.HTTPTransport:
        key = target[:3]
        with self._lock:
            pool = self._pools.pop(key, None) or httpx.HTTPTransport(trust_env=False)
            self._pools[key] = pool
            surplus = [self._pools.pop(next(iter(self._pools))) for _ in range(len(self._pools) - MOST_HOSTS)]
        for one in surplus:
            one.close()
        return pool

    def close(self) -> None:
        """Closes the connections."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()


def _to(request: httpx.Request, target: Target, address: str) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # `Host` is in them already, by the URL's own name
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": target.host},
    )
