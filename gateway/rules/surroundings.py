"""What rules may know beside facts: which device stands where, areas, the town's zone. Read once, never written. Data only."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from gateway.deployments import Deployments
from gateway.mimamori.enrolled import Enrolled

if TYPE_CHECKING:  # as in gateway.rules.crowd
    from gateway.flow.config import AreaConfig


class Surroundings(NamedTuple):
    """Handed to every rule when it is built."""

    deployments: Deployments = Deployments(())
    zone: ZoneInfo = ZoneInfo("Asia/Tokyo")
    areas: Mapping[str, "AreaConfig"] = {}
    enrolled: Enrolled = Enrolled()
    """Whose tag is whose; read anew while rules run."""
    keep_sightings_s: float = 14 * 86_400
    """How long a rule may remember where a tag was."""
    pictures_told: bool = False
    """Whether a `detection` rule is there, which tells of animals before cameras."""
