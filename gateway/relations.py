"""Who is tied to what, looked up at the moment somebody asks: gateway.policy's World. Reads only."""

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import select

from gateway.deployments import Deployments
from gateway.mimamori.enrolled import Enrolled
from gateway.state import State
from gateway.state.tables import job_nodes, jobs, notifications, search_cases


class Relations:
    """Over the configuration and the state database."""

    def __init__(self, state: State, deployments: Deployments, enrolled: Enrolled, now_us: Callable[[], int]) -> None:
        self._state, self._deployments, self._enrolled, self._now_us = state, deployments, enrolled, now_us

    def devices_of(self, groups: frozenset[str]) -> Iterable[tuple[str, str]]:
        """By `deployment.groups`."""
        return [(one.node, one.device) for one in self._deployments if not groups.isdisjoint(one.groups)]

    def people_of(self, groups: frozenset[str]) -> Iterable[str]:
        """By whom their family is."""
        people = (self._enrolled.of(id_) for id_ in self._enrolled.ids())
        return [who.id for who in people if who is not None and who.family in groups]

    def nodes_of(self, account: str) -> Sequence[str]:
        """By the jobs that run now."""
        now_us = self._now_us()
        theirs = select(job_nodes.c.node).join(jobs, jobs.c.id == job_nodes.c.job).where(jobs.c.account == account)
        running = theirs.where(jobs.c.from_us <= now_us, jobs.c.until_us > now_us, jobs.c.ended_us.is_(None))
        with self._state.read() as connection:
            return connection.scalars(running).all()

    def cases_of(self, contact: str) -> Sequence[str]:
        """By whom the search asked, while it is open."""
        asked = notifications.c.page == search_cases.c.helpers_page
        theirs = select(search_cases.c.id).join(notifications, asked).where(notifications.c.contact == contact).distinct()
        with self._state.read() as connection:
            return connection.scalars(theirs.where(search_cases.c.state == "open")).all()
