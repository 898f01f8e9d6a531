"""What knows the nodes' identities, of one folder and one database. Nothing of HTTP: gateway.nodes.listener serves it."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.config import NodesConfig
from gateway.nodes.authority import SIGNING_KEY, Authority
from gateway.nodes.brokers import Brokers
from gateway.nodes.claims import Claims, Offer
from gateway.nodes.renewals import Renewals
from gateway.nodes.signing import Signer
from gateway.state import State


class Care(NamedTuple):
    """The parts that know the nodes' identities."""

    authority: Authority
    signer: Signer
    brokers: Brokers
    claims: Claims
    renewals: Renewals


def open_care(config: NodesConfig, state: State, now_us: Callable[[], int]) -> Care:
    """All of them, on one folder and one database. ConfigError when the authority can't be used."""
    authority = Authority.read(config.folder)
    signer = Signer.read(config.folder / SIGNING_KEY)
    brokers = Brokers(state, authority, config.broker_pid_file, now_us)
    offer = Offer(config.public_url.rstrip("/"), config.broker_url, config.certificate_days, config.claim_hours)
    return Care(
        authority,
        signer,
        brokers,
        Claims(state, authority, signer, brokers, offer, now_us),
        Renewals(state, authority, signer, brokers, config.certificate_days, now_us),
    )
