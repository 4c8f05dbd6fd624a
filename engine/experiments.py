"""Who is in which arm of which experiment, pure: a matter of the customer's id and the configuration alone.

    u = keyed hash (salt, customer) in 0 .. 1        arm = the one whose span has u, else the champion

So it is the same in every channel, on every server and for as long as the salt stays; nothing is stored, and a replay
needs nothing else. Experiments have salts of their own and are independent, so are the arms of one and the people of
another. Experiments of one layer share a second hash, of which each has a section: nobody is in two of them. Spans
depend on an arm's own share alone (engine.experiments_schema): one that grows takes people from the champion only.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.experiments_schema import CHAMPION, Arm, Experiment
from engine.holds import CONTROL_GROUP, Situation
from engine.limits import TIME_MS_MAX

Bools = NDArray[np.bool_]

OUTSIDE: Final = -2
"""In place of an arm: not one of the people of the experiment."""
CHAMPIONS: Final = -1
"""In place of an arm: the champion's."""
_PEOPLE_REMEMBERED_MAX: Final = 16_384
_STANDINGS_REMEMBERED_MAX: Final = 4_096
_UNIT: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class Standing:
    """Where somebody stands in all experiments of a moment, and what that changes."""

    names: tuple[str, ...] = ()
    """ "experiment:arm" of those that the person takes part in."""
    wire: bytes = b""
    """The same as fields of a DecideResponse."""
    controls: tuple[int, ...] = ()
    """Limits of the control groups that the person is in, see `ControlGroups`."""
    levers: bool = True
    """Whether levers and context weights count."""
    model: bool = True
    """Whether estimates are the person's own."""
    uniform: bool = False
    """Whether it is drawn evenly from what may be offered."""
    greedy: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is decided as by the champion, holds apart."""
        return self.levers and self.model and not self.uniform and not self.greedy


NOWHERE: Final = Standing()


class Assignment:
    """Of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._low, self._high = experiment.people
        self._layer = key_of_hash("layer", experiment.layer or experiment.keyed_by)
        self._key = key_of_hash("experiment", experiment.keyed_by)
        spans = sorted((span, at) for at, span in enumerate(experiment.spans()) if span[0] < span[1])
        self._starts = [start for (start, _), _ in spans]
        self._ends = [end for (_, end), _ in spans]
        self._arms = [at for _, at in spans]
        self._all = (self._low, self._high) == (0.0, 1.0)

    def arm(self, customer: str) -> int:
        """Index of the arm, or CHAMPIONS or OUTSIDE; whether the experiment runs is not asked."""
        name = customer.encode()
        if not self._all and not self._low <= uniform(self._layer, name) < self._high:
            return OUTSIDE
        u = uniform(self._key, name)
        at = bisect_right(self._starts, u) - 1
        return self._arms[at] if at >= 0 and u < self._ends[at] else CHAMPIONS

    def runs(self, time_ms: int) -> bool:
        """Whether it runs then."""
        return self.experiment.starts_ms <= time_ms < self.experiment.ends_ms

    def name(self, arm: int) -> str:
        """Name of an arm by its index."""
        return CHAMPION if arm == CHAMPIONS else self.experiment.arms[arm].name


def key_of_hash(kind: str, salt: str) -> bytes:
    """The key of a hash: of an experiment and of a layer with the same salt they differ."""
    return blake2b(f"opportune\0{kind}\0{salt}".encode(), digest_size=32).digest()


def uniform(key: bytes, name: bytes) -> float:
    """Where a name lies on the line from 0, inclusive, to 1.

    >>> key = key_of_hash("experiment", "autumn")
    >>> uniform(key, b"ann") == uniform(key, b"ann"), uniform(key, b"ann") == uniform(key, b"bob")
    (True, False)
    """
    return (int.from_bytes(blake2b(name, key=key, digest_size=8).digest(), "little") >> 11) * _UNIT


@dataclass(frozen=True, slots=True)
class _Spared:
    """One control group: what it is not offered, and where."""

    name: str
    offers: Bools
    channels: frozenset[int]
    """Empty: all of them."""


class ControlGroups:
    """Keeps back offers from control groups: an engine.holds.Holder. One limit a group, the scope is 0."""

    def __init__(self, experiments: "Experiments", groups: Sequence[_Spared]) -> None:
        self._experiments = experiments
        self._groups = groups
        self.names = tuple(group.name for group in groups)
        self.layer = CONTROL_GROUP
        self.derived = True

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, int]]] | None:
        """(limit, scope) of each decision; None: nobody is in a control group."""
        found: list[Sequence[tuple[int, int]]] = []
        any_held = False
        times_ms, channels = situation.times_ms.tolist(), situation.channels.tolist()
        for customer, time_ms, channel in zip(situation.customers, times_ms, channels, strict=True):
            standing = self._experiments.of(customer, time_ms)
            groups = self.applying(standing, channel) if standing.controls else ()
            any_held |= bool(groups)
            found.append([(group, 0) for group in groups])
        return found if any_held else None

    def covers(self, limit: int, scope: int) -> Bools:
        """(offers,) what a group is spared."""
        return self._groups[limit].offers

    def applying(self, standing: Standing, channel: int) -> list[int]:
        """The groups whose people are spared something in this channel."""
        groups = self._groups
        return [at for at in standing.controls if not groups[at].channels or channel in groups[at].channels]


@dataclass(eq=False)
class Experiments:
    """Those of one configuration."""

    assignments: Sequence[Assignment]
    control: ControlGroups = field(init=False)
    _limits: Mapping[tuple[int, int], int] = field(init=False)
    """Limit of each control arm, by (experiment, arm)."""

    def __init__(self, config: Config) -> None:
        self.assignments = [Assignment(experiment) for experiment in config.experiments]
        channels = {channel.id: at for at, channel in enumerate(config.channels)}
        groups: list[_Spared] = []
        self._limits = {}
        for number, experiment in enumerate(config.experiments):
            controls = [at for at, arm in enumerate(experiment.arms) if arm.policy == "control"]
            for at in controls:
                arm = experiment.arms[at]
                name = f"control group {experiment.name}" + (f":{arm.name}" if len(controls) > 1 else "")
                self._limits[number, at] = len(groups)
                there = frozenset(channels[channel] for channel in arm.spares.channels)
                groups.append(_Spared(name, _spared(config, arm), there))
        self.control = ControlGroups(self, groups)
        self._timed = any(one.starts_ms > 0 or one.ends_ms < TIME_MS_MAX for one in config.experiments)
        self._standings: dict[tuple[int, ...], Standing] = {}
        self._codes = lru_cache(_PEOPLE_REMEMBERED_MAX)(self._codes_of)

    def __len__(self) -> int:
        return len(self.assignments)

    def of(self, customer: str, time_ms: int) -> Standing:
        """Where a customer stands at a time."""
        if not self.assignments:
            return NOWHERE
        codes: tuple[int, ...] = self._codes(customer)
        if self._timed and not all(one.runs(time_ms) for one in self.assignments):
            pairs = zip(codes, self.assignments, strict=True)
            codes = tuple([code if one.runs(time_ms) else OUTSIDE for code, one in pairs])
        found = self._standings.get(codes)
        if found is None:
            if len(self._standings) >= _STANDINGS_REMEMBERED_MAX:
                self._standings.clear()
            found = self._standings[codes] = self._standing(codes)
        return found

    def kept_back(self, customer: str, time_ms: int, channel: int) -> Bools | None:
        """(offers,) what a customer is spared as one of a control group; None: nothing."""
        applying = self.control.applying(self.of(customer, time_ms), channel)
        if not applying:
            return None
        kept = self.control.covers(applying[0], 0)
        for group in applying[1:]:
            kept = kept | self.control.covers(group, 0)
        return kept

    def _codes_of(self, customer: str) -> tuple[int, ...]:
        return tuple([one.arm(customer) for one in self.assignments])

    def _standing(self, codes: tuple[int, ...]) -> Standing:
        there = [(at, code) for at, code in enumerate(codes) if code != OUTSIDE]
        names = tuple(f"{self.assignments[at].experiment.name}:{self.assignments[at].name(code)}" for at, code in there)
        arms = [self.assignments[at].experiment.arms[code] for at, code in there if code >= 0]
        policies = {arm.policy for arm in arms}
        return Standing(
            names=names,
            wire=b"".join(_field(name.encode()) for name in names),
            controls=tuple(self._limits[key] for key in there if key in self._limits),
            levers="no_levers" not in policies,
            model="no_model" not in policies,
            uniform="eligibility_only" in policies,
            greedy="greedy" in policies,
        )


def _field(name: bytes) -> bytes:
    """DecideResponse.arms, number 14, with its length as a varint: two names and a colon may be 129 bytes."""
    size = len(name)
    return bytes((14 << 3 | 2, *((size,) if size < 0x80 else (size & 0x7F | 0x80, size >> 7)))) + name


def _spared(config: Config, arm: Arm) -> Bools:
    """(offers,) what a control group is not offered."""
    spares = arm.spares
    return np.array(
        [
            (not spares.kinds or offer.kind in spares.kinds)
            and (not spares.categories or offer.category in spares.categories)
            and offer.kind not in spares.exempt
            for offer in config.offers
        ]
    )
