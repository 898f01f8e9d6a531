"""How dense is too dense, and how full is full: levels with hysteresis. Pure.

Density: J. J. Fruin, "The Causes and Prevention of Crowd Disasters" (1993, rev. 2002), as figures in people a m²: at 2 walking is
slowed, at 3.57 people touch whether they want or not, at 5.55 forces become dangerous, at 7.1 critical.
Shelters: the four steps by which Japanese towns show how crowded one is: below 30 %, 60 %, 80 % of its capacity, and beyond.
"""

FRUIN = (2.0, 3.57, 5.55, 7.1)
"""People a m² at which levels 1 to 4 begin."""
SHELTER = (0.3, 0.6, 0.8)
"""Shares of a shelter's capacity at which levels 2 to 4 begin; level 1 is whatever is below."""

EASE = 0.9
"""A level is left only when the value is below this share of where it began: a crowd at the edge must not ring and unring."""


def density_level(per_m2: float, before: int = 0) -> int:
    """0 (free) to 4 (critical), by Fruin; `before` is the level so far."""
    return _level(per_m2, FRUIN, before)


def shelter_level(share: float, before: int = 1) -> int:
    """1 to 4; `before` is the level so far."""
    return _level(share, SHELTER, before - 1) + 1


def _level(value: float, limits: tuple[float, ...], before: int) -> int:
    reached = sum(value >= limit for limit in limits)
    held = sum(value >= limit * EASE for limit in limits)
    return max(reached, min(before, held))
