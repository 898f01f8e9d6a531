"""The invented town 霧沢町: what is true there, as a pure function of (seed, time).

No clock, no I/O, no state that shows: the same seed gives the same town in any process and in any order of asking, and
each question costs well under a millisecond (one night is worked out once and remembered). Times are UTC in µs; the
town lives by Japan's time, which has no summer time. A time-lapse is the caller's: ask for the world's times faster.

All places, people and animals are invented. Causes come before effects: an animal that springs a trap was seen by the
camera beside it, is caught and goes no further; a watch tag is at one place at a time; whom a counter let out it has
let in.
"""

import struct
import uuid
from bisect import bisect_right
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

Kind = Literal["reed_trap", "trail_camera", "ble_tags", "people_counter"]
"""What a device is, by the `type` of the driver that reads it."""

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
JST_US = 9 * HOUR_US

OPENED_US = 1_767_193_200 * SECOND_US
"""2026-01-01 00:00 in Japan: the day the people counters were installed. Before it their totals are 0."""


class Tag(NamedTuple):
    """A watch tag as it names itself in the air: never a person.

    `identity` is big-endian, as sent: an iBeacon's UUID (16 bytes), major and minor (2 each), or an Eddystone-UID's
    namespace (10) and instance (6).
    """

    kind: Literal["ibeacon", "eddystone-uid"]
    identity: bytes

    @property
    def name(self) -> str:
        """The tag's name in the project's records, e.g. `ibeacon:<uuid>:<major>:<minor>`."""
        if self.kind == "ibeacon":
            major, minor = (int.from_bytes(part, "big") for part in (self.identity[16:18], self.identity[18:20]))
            return f"ibeacon:{uuid.UUID(bytes=self.identity[:16])}:{major}:{minor}"
        return f"eddystone-uid:{self.identity[:10].hex()}:{self.identity[10:].hex()}"


class SimDevice(NamedTuple):
    """One device: its name (unique on its node), kind, the place it stands at and what people call it."""

    name: str
    kind: Kind
    place: str
    label: str


class SimNode(NamedTuple):
    """One node and the devices on it."""

    name: str
    devices: list[SimDevice]


class Happening(NamedTuple):
    """One thing that truly happened: what a scenario compares the alerts with.

    `kind` is trap_sprung, trap_reset or picture (`what` is the animal or "person"), or tag_left or tag_entered (`what`
    is the tag's name and the place a receiver's).
    """

    t_us: int
    kind: Literal["trap_sprung", "trap_reset", "picture", "tag_left", "tag_entered"]
    node: str
    device: str
    what: str


class _Spot(NamedTuple):
    """A node of one valley: its name, its place's name, its devices."""

    node: str
    place: str
    devices: tuple[tuple[str, Kind, str], ...]


_SPOTS = (
    _Spot(
        "kitaone",
        "北尾根",
        (
            ("trap-1", "reed_trap", "北尾根 1番"),
            ("trap-2", "reed_trap", "北尾根 2番"),
            ("trap-3", "reed_trap", "北尾根 3番"),
            ("cam-1", "trail_camera", "北尾根 カメラ"),
        ),
    ),
    _Spot(
        "minamisawa",
        "南沢",
        (
            ("trap-4", "reed_trap", "南沢 4番"),
            ("trap-5", "reed_trap", "南沢 5番"),
            ("cam-2", "trail_camera", "南沢 カメラ"),
        ),
    ),
    _Spot("karasuiwa", "烏岩", (("trap-6", "reed_trap", "烏岩 6番"), ("cam-3", "trail_camera", "烏岩 カメラ"))),
    _Spot(
        "kannonbashi",
        "観音橋",
        (("tags", "ble_tags", "観音橋 受信機"), ("counter", "people_counter", "観音橋 人数計")),
    ),
    _Spot(
        "kominkan",
        "中央公民館",
        (("tags", "ble_tags", "中央公民館 受信機"), ("counter", "people_counter", "中央公民館 玄関")),
    ),
    _Spot(
        "hiroba",
        "朝市広場",
        (
            ("tags", "ble_tags", "朝市広場 受信機"),
            ("counter-east", "people_counter", "朝市広場 東口"),
            ("counter-south", "people_counter", "朝市広場 南口"),
        ),
    ),
    _Spot("tsubaki", "つばきの家", (("tags", "ble_tags", "つばきの家 受信機"),)),
    _Spot("momiji", "もみじの家", (("tags", "ble_tags", "もみじの家 受信機"),)),
)

_MOUNTAIN = tuple(spot for spot in _SPOTS if any(kind == "reed_trap" for _, kind, _ in spot.devices))

_ANIMALS = ("wild-boar", "wild-boar", "deer", "deer", "tanuki", "bear")
_SPRINGS = frozenset(("wild-boar", "deer"))  # heavy enough, and what the traps are set for
_CATCH = 0.1  # of the times such an animal stops beside a trap that is set


class _Resident(NamedTuple):
    home: str
    kind: Literal["ibeacon", "eddystone-uid"]
    wanders: bool


_RESIDENTS = (
    _Resident("tsubaki", "ibeacon", wanders=True),
    _Resident("tsubaki", "eddystone-uid", wanders=False),
    _Resident("momiji", "ibeacon", wanders=False),
    _Resident("momiji", "eddystone-uid", wanders=False),
)

# How a day's visitors come and go: (time of day, so many of 1000 by then). Out is never ahead of in, and the day closes
# with all of them gone.
_Curve = tuple[tuple[int, int], ...]
_COME: _Curve = ((6 * HOUR_US, 0), (9 * HOUR_US, 250), (12 * HOUR_US, 500), (17 * HOUR_US, 900), (20 * HOUR_US, 1000))
_GO: _Curve = ((7 * HOUR_US, 0), (10 * HOUR_US, 250), (13 * HOUR_US, 500), (18 * HOUR_US, 900), (21 * HOUR_US, 1000))
_FESTIVAL_COME: _Curve = ((17 * HOUR_US, 0), (18 * HOUR_US, 300), (19 * HOUR_US, 850), (20 * HOUR_US, 1000))
_FESTIVAL_GO: _Curve = ((18 * HOUR_US, 0), (20 * HOUR_US, 250), (21 * HOUR_US, 750), (22 * HOUR_US, 1000))

_SATURDAY = 2  # of days since 1970-01-01, a Thursday, mod 7
_DAILY = {"counter": 300, "counter-east": 400, "counter-south": 400}
_FESTIVAL = {"counter": 0, "counter-east": 3000, "counter-south": 1800}


def _share(*key: object) -> float:
    """A number in [0, 1) that is always the same for the same key and tells nothing of it."""
    digest = blake2b("|".join(map(str, key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _day(t_us: int) -> tuple[int, int]:
    """The day in Japan (days since 1970-01-01) and the µs since its midnight."""
    return divmod(t_us + JST_US, DAY_US)


def _midnight_us(day: int) -> int:
    return day * DAY_US - JST_US


class _Night(NamedTuple):
    """From noon to noon in the mountains of one valley; all times inside it."""

    sprung: dict[tuple[str, str], tuple[int, int, str]]  # (node, trap) -> sprung, reset by a person, the animal
    pictures: dict[tuple[str, str], tuple[tuple[int, str], ...]]  # (node, camera) -> in order of time


@lru_cache(maxsize=1024)
def _night(seed: int, valley: int, night: int) -> _Night:
    """What the animals did in the night that begins at noon of day `night`: each walks from place to place until dawn."""
    key = (seed, valley, night)
    dusk_us = _midnight_us(night) + 18 * HOUR_US
    dawn_us = dusk_us + 11 * HOUR_US
    sprung: dict[tuple[str, str], tuple[int, int, str]] = {}
    pictures: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for animal, what in enumerate(_ANIMALS):
        t_us = dusk_us + int(_share(*key, "wakes", animal) * 4 * HOUR_US)
        at = int(_share(*key, "from", animal) * len(_MOUNTAIN))
        step = 0
        while t_us < dawn_us:
            node, _, devices = _MOUNTAIN[at]
            cameras = [name for name, kind, _ in devices if kind == "trail_camera"]
            traps = [name for name, kind, _ in devices if kind == "reed_trap"]
            for camera in cameras:
                burst = [(t_us + shot * 5 * SECOND_US, what) for shot in range(3)]
                pictures.setdefault((node, camera), []).extend(burst)
            trap = traps[int(_share(*key, "beside", animal, step) * len(traps))]
            steps_in = what in _SPRINGS and _share(*key, "steps in", animal, step) < _CATCH
            if steps_in and (node, trap) not in sprung:
                sprung_us = t_us + 2 * SECOND_US + int(_share(*key, "trigger", node, trap) * 20 * SECOND_US)
                reset_us = dawn_us + 2 * HOUR_US + int(_share(*key, "round", node, trap) * 3 * HOUR_US)
                sprung[node, trap] = (sprung_us, reset_us, what)
                for camera in cameras:
                    pictures[node, camera].append((reset_us - MINUTE_US, "person"))
                break  # it goes no further
            t_us += 40 * MINUTE_US + int(_share(*key, "walks", animal, step) * 100 * MINUTE_US)
            at = (at + 1 + int(_share(*key, "turns", animal, step) * (len(_MOUNTAIN) - 1))) % len(_MOUNTAIN)
            step += 1
    return _Night(sprung, {camera: tuple(sorted(shots)) for camera, shots in pictures.items()})


class _Stay(NamedTuple):
    """A tag within a receiver's reach."""

    node: str
    from_us: int
    until_us: int


@lru_cache(maxsize=4096)
def _stays(seed: int, valley: int, who: int, day: int) -> tuple[_Stay, ...]:
    """Where a resident's tag was on a day, in order of time; between two stays no receiver hears it."""
    resident, key, midnight_us = _RESIDENTS[who], (seed, valley, who, day), _midnight_us(day)

    def about(name: str, minutes: int) -> int:
        return int(_share(*key, name) * minutes * MINUTE_US)

    # Each outing: when it begins, (way there, place, stay) in order, way home.
    outings: list[tuple[int, list[tuple[int, str, int]], int]] = []
    if resident.wanders and _share(*key, "restless") < 0.5:
        stops = [(12 * MINUTE_US, "kannonbashi", 4 * MINUTE_US), (15 * MINUTE_US, "hiroba", 6 * MINUTE_US)]
        outings.append((2 * HOUR_US + 25 * MINUTE_US + about("night", 30), stops, 40 * MINUTE_US))
    walk = [(12 * MINUTE_US, "kominkan", 60 * MINUTE_US + about("tea", 60))]
    outings.append((8 * HOUR_US + 30 * MINUTE_US + about("morning", 60), walk, 12 * MINUTE_US))
    if _share(*key, "shops") < 0.6:
        stops = [
            (8 * MINUTE_US, "kannonbashi", 5 * MINUTE_US),
            (10 * MINUTE_US, "hiroba", 20 * MINUTE_US + about("shopping", 40)),
        ]
        outings.append((14 * HOUR_US + about("afternoon", 60), stops, 15 * MINUTE_US))
    if day % 7 == _SATURDAY:
        festival = [(15 * MINUTE_US, "hiroba", 90 * MINUTE_US + about("dance", 60))]
        outings.append((17 * HOUR_US + about("evening", 60), festival, 20 * MINUTE_US))

    stays: list[_Stay] = []
    home_since_us = midnight_us
    for start_us, stops, way_home_us in outings:
        t_us = midnight_us + start_us
        stays.append(_Stay(resident.home, home_since_us, t_us))
        for way_us, node, stay_us in stops:
            stays.append(_Stay(node, t_us + way_us, t_us + way_us + stay_us))
            t_us += way_us + stay_us
        home_since_us = t_us + way_home_us
    stays.append(_Stay(resident.home, home_since_us, midnight_us + DAY_US))
    return tuple(stays)


def _come_so_far(people: int, curve: _Curve, time_of_day_us: int) -> int:
    """How many of `people` have passed. Whole numbers only, so that it can't step back by rounding."""
    index = bisect_right(curve, (time_of_day_us, 1001))
    if index == 0:
        return 0
    if index == len(curve):
        return people
    (x0, y0), (x1, y1) = curve[index - 1], curve[index]
    return people * (y0 * (x1 - x0) + (time_of_day_us - x0) * (y1 - y0)) // (1000 * (x1 - x0))


class World:
    """The town of one seed. `scale` repeats its eight nodes in so many valleys, each with its own animals and people.

    Every method is a pure function of its arguments; LookupError when there is no such device of that kind.
    """

    def __init__(self, seed: int, scale: int = 1) -> None:
        if scale < 1:
            raise ValueError(f"scale {scale}: a world has 1 valley or more")
        self.seed = seed
        self.scale = scale
        self.beacon_uuid = uuid.UUID(bytes=blake2b(f"{seed}|beacon".encode(), digest_size=16).digest(), version=4)
        """The proximity UUID of all the town's iBeacons; any other is foreign."""
        self.eddystone_namespace = blake2b(f"{seed}|namespace".encode(), digest_size=10).digest()
        """The namespace of all the town's Eddystone-UID tags."""
        self._nodes: list[SimNode] = []
        self._devices: dict[tuple[str, str], tuple[Kind, int, str]] = {}  # kind, valley, the node's name in valley 0
        for valley in range(scale):
            for spot in _SPOTS:
                node, place = self._name(spot.node, valley), spot.place + (f" 第{valley + 1}" if valley else "")
                devices = [SimDevice(name, kind, place, label.replace(spot.place, place)) for name, kind, label in spot.devices]
                self._nodes.append(SimNode(node, devices))
                for device in devices:
                    self._devices[node, device.name] = (device.kind, valley, spot.node)

    def nodes(self) -> list[SimNode]:
        """All nodes with their devices: 8 nodes and 18 devices per valley."""
        return [SimNode(name, list(devices)) for name, devices in self._nodes]

    def residents(self) -> list[tuple[Tag, str]]:
        """Every watch tag of the town with the node of its home."""
        return [
            (self._tag(valley, who), self._name(resident.home, valley))
            for valley in range(self.scale)
            for who, resident in enumerate(_RESIDENTS)
        ]

    def wanderers(self) -> list[Tag]:
        """The tags of those who leave home at night, about every second night at half past two."""
        return [
            self._tag(valley, who) for valley in range(self.scale) for who, resident in enumerate(_RESIDENTS) if resident.wanders
        ]

    def trap_is_sprung(self, node: str, device: str, t_us: int) -> bool:
        """Whether the trap's switch says sprung: from an animal in the night until a person comes in the morning."""
        valley, spot = self._find(node, device, "reed_trap")
        caught = _night(self.seed, valley, _night_of(t_us)).sprung.get((spot, device))
        return caught is not None and caught[0] <= t_us < caught[1]

    def pictures_between(self, node: str, device: str, t0_us: int, t1_us: int) -> list[tuple[int, str]]:
        """The pictures a camera took in [t0, t1): when, and what is on them. In order of time."""
        valley, spot = self._find(node, device, "trail_camera")
        return [
            shot
            for night in range(_night_of(t0_us), _night_of(t1_us) + 1)
            for shot in _night(self.seed, valley, night).pictures.get((spot, device), ())
            if t0_us <= shot[0] < t1_us
        ]

    def counter_totals(self, node: str, device: str, t_us: int) -> tuple[int, int]:
        """How many people a counter has seen come in and go out since it was installed. Neither ever gets smaller."""
        valley, spot = self._find(node, device, "people_counter")
        day, time_of_day_us = _day(t_us)
        opened = _day(OPENED_US)[0]
        if day < opened:
            return 0, 0
        key = (self.seed, valley, spot, device)

        def before(per_time: int, index: int, name: str) -> int:
            # The mean times the days so far, and a jitter too small to let the sum step back.
            return per_time * index + int(per_time * 0.4 * (_share(*key, name, index) - _share(*key, name, 0)))

        daily, festival = _DAILY[device], _FESTIVAL[device]
        base = before(daily, day - opened, "day")
        people = before(daily, day - opened + 1, "day") - base
        week = (day - _SATURDAY) // 7 - (opened - 1 - _SATURDAY) // 7  # Saturdays from the opening until today
        evening = day % 7 == _SATURDAY
        before_festival = before(festival, week - evening, "festival")
        crowd = before(festival, week, "festival") - before_festival
        came, went = base + before_festival, base + before_festival
        came += _come_so_far(people, _COME, time_of_day_us)
        went += _come_so_far(people, _GO, time_of_day_us)
        came += _come_so_far(crowd, _FESTIVAL_COME, time_of_day_us) if evening else 0
        went += _come_so_far(crowd, _FESTIVAL_GO, time_of_day_us) if evening else 0
        return came, went

    def festival(self, t_us: int) -> tuple[int, int]:
        """Begin and end of the festival evening that runs at `t_us`, or else of the next one: Saturdays, 17 to 22."""
        day, time_of_day_us = _day(t_us)
        if time_of_day_us >= 22 * HOUR_US:
            day += 1
        midnight_us = _midnight_us(day + (_SATURDAY - day) % 7)
        return midnight_us + 17 * HOUR_US, midnight_us + 22 * HOUR_US

    def tags_near(self, node: str, device: str, t_us: int) -> list[tuple[Tag, int]]:
        """What a BLE receiver hears in these seconds: tags with their signal in dBm, strangers' beacons among them.

        One advertisement in ten is missed, as on the air; the signal changes every second.
        """
        valley, spot = self._find(node, device, "ble_tags")
        day, _ = _day(t_us)
        second = t_us // SECOND_US
        near = [
            self._tag(valley, who)
            for who in range(len(_RESIDENTS))
            for stay in _stays(self.seed, valley, who, day)
            if stay.node == spot and stay.from_us <= t_us < stay.until_us
        ]
        begin_us, end_us = self.festival(t_us)
        if spot == "hiroba" and begin_us <= t_us < end_us:
            near += [self._foreign(valley, day, stranger) for stranger in range(5)]
        heard = []
        for tag in near:
            luck = _share(self.seed, tag.identity.hex(), node, device, second)
            if luck >= 0.1:
                heard.append((tag, -88 + int(luck * 36)))
        return heard

    def happenings(self, t0_us: int, t1_us: int) -> list[Happening]:
        """All that happened in [t0, t1), in order of time: traps, pictures, tags that left or came within reach."""
        found: list[Happening] = []
        for valley in range(self.scale):
            for night in range(_night_of(t0_us), _night_of(t1_us) + 1):
                there = _night(self.seed, valley, night)
                for (spot, trap), (sprung_us, reset_us, what) in there.sprung.items():
                    node = self._name(spot, valley)
                    found.append(Happening(sprung_us, "trap_sprung", node, trap, what))
                    found.append(Happening(reset_us, "trap_reset", node, trap, what))
                for (spot, camera), shots in there.pictures.items():
                    node = self._name(spot, valley)
                    found += [Happening(t_us, "picture", node, camera, what) for t_us, what in shots]
            for who in range(len(_RESIDENTS)):
                tag = self._tag(valley, who).name
                for day in range(_day(t0_us)[0], _day(t1_us)[0] + 1):
                    for stay in _stays(self.seed, valley, who, day):
                        node = self._name(stay.node, valley)
                        # At midnight one day's stay goes over into the next: nobody moves.
                        if stay.from_us != _midnight_us(day):
                            found.append(Happening(stay.from_us, "tag_entered", node, "tags", tag))
                        if stay.until_us != _midnight_us(day + 1):
                            found.append(Happening(stay.until_us, "tag_left", node, "tags", tag))
        return sorted(happening for happening in found if t0_us <= happening.t_us < t1_us)

    @staticmethod
    def _name(spot: str, valley: int) -> str:
        return f"{spot}-{valley + 1}" if valley else spot

    def _find(self, node: str, device: str, kind: Kind) -> tuple[int, str]:
        known = self._devices.get((node, device))
        if known is None or known[0] != kind:
            raise LookupError(f"this town has no {kind} {device!r} on a node {node!r}; nodes() lists what it has")
        return known[1], known[2]

    def _tag(self, valley: int, who: int) -> Tag:
        valley_no, person_no = valley + 1, who + 1
        if _RESIDENTS[who].kind == "ibeacon":
            return Tag("ibeacon", self.beacon_uuid.bytes + struct.pack(">HH", valley_no, person_no))
        return Tag("eddystone-uid", self.eddystone_namespace + struct.pack(">IH", valley_no, person_no))

    def _foreign(self, valley: int, day: int, stranger: int) -> Tag:
        key = f"{self.seed}|stranger|{valley}|{day}|{stranger}".encode()
        return Tag("ibeacon", blake2b(key, digest_size=20).digest())


def _night_of(t_us: int) -> int:
    """The night (from noon to noon) that a time belongs to."""
    return (t_us + JST_US - DAY_US // 2) // DAY_US
