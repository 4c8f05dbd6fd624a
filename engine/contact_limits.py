"""Caps and cool-offs of a configuration as limits: what each counts, by which groups of offers."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config_schema import Config, key_of
from engine.contact_kernel import ALL, CATEGORY, CHANNEL, GROUP, KIND, OFFER
from engine.contact_schema import Cap, CoolOff
from engine.groups import lineage
from engine.holds import Bools
from engine.lifecycle import Stage

KINDS: Final = ("sale", "service", "retention", "question")
"""In the order of their numbers, from 1."""

_SHOWN: Final = (
    Stage.PRESENTED, Stage.CLICKED, Stage.IGNORED, Stage.ACCEPTED, Stage.DECLINED, Stage.FULFILLED, Stage.CANCELLED,
)  # fmt: skip
_COUNTED: Final = {
    "served": frozenset(Stage) - {Stage.NOT_PRESENTED},
    "presented": frozenset(_SHOWN),
    "accepted": frozenset({Stage.ACCEPTED, Stage.FULFILLED}),
    "declined": frozenset({Stage.DECLINED}),
    "contacts": frozenset(Stage),
}


class Limit(NamedTuple):
    """A cap or a cool-off."""

    name: str
    mode: int
    """By what rows are counted."""
    groups: tuple[tuple[int, Bools], ...]
    """(scope, offers that it keeps back) of each."""
    members: NDArray[np.int64]
    """Group by offer, category or kind, as `mode` says; -1: not counted. Of groups of the configuration: `runs`."""
    most: int
    lasts_ms: int
    per: str
    stages: frozenset[Stage]
    cools: bool
    served: bool
    """Whether serving counts: then there may be room for some of a slate only."""
    contacts: bool
    channels: tuple[str, ...]
    runs: tuple[tuple[int, ...], ...] = ()
    """Of groups of the configuration: those in which a contact counts, by offer, then by group that it named."""


def of_cap(cap: Cap, config: Config) -> Limit:
    """A cap as a limit."""
    mode, groups, members = _groups_of(cap.of, cap.which, config)
    return Limit(
        cap.label,
        mode,
        groups,
        members,
        cap.most,
        cap.within or 0,
        cap.per or "",
        _COUNTED[cap.counts],
        cools=False,
        served=cap.counts == "served",
        contacts=cap.counts == "contacts",
        channels=cap.channels,
        runs=_runs(cap.of, cap.which, config),
    )


def of_cool_off(cool: CoolOff, config: Config) -> Limit:
    """A cool-off as a limit: from its outcome on it allows none."""
    of = "offers" if cool.of == "all" and cool.which else cool.of
    mode, groups, members = _groups_of(of, cool.which, config)
    if cool.of == "all":
        groups = ((0, np.ones(len(config.offers), dtype=np.bool_)),)
    stages = frozenset(Stage[stage.upper()] for stage in cool.after)
    if Stage.ACCEPTED in stages:
        stages |= {Stage.FULFILLED}
    return Limit(
        cool.label,
        mode,
        groups,
        members,
        1,
        cool.duration,
        "",
        stages,
        cools=True,
        served=False,
        contacts=False,
        channels=(),
        runs=_runs(cool.of, cool.which, config),
    )


def _groups_of(
    of: str, which: Sequence[str], config: Config
) -> tuple[int, tuple[tuple[int, Bools], ...], NDArray[np.int64]]:
    """(mode, groups, members) of a limit."""
    offers = config.offers

    def mask(names: Sequence[str]) -> Bools:
        return np.array([name in names for name in (offer.id for offer in offers)], dtype=np.bool_)

    def numbered(names: Sequence[str]) -> NDArray[np.int64]:
        places = {name: at for at, name in enumerate(n for n in names if not which or n in which)}
        return np.array([places.get(name, -1) for name in names], dtype=np.int64)

    everything = np.ones(len(offers), dtype=np.bool_)
    if of in ("all", "channel"):
        return ALL if of == "all" else CHANNEL, ((0, everything),), np.zeros(0, dtype=np.int64)
    if of == "offers":
        return OFFER, ((0, mask(which)),), np.where(mask(which), 0, -1).astype(np.int64)
    if of == "offer":
        ids = [offer.id for offer in offers]
        return OFFER, tuple([(key_of(i), mask([i])) for i in ids if not which or i in which]), numbered(ids)
    if of == "category":
        names = sorted({offer.category for offer in offers})
        return (
            CATEGORY,
            tuple(
                [
                    (key_of(name), np.array([offer.category == name for offer in offers], dtype=np.bool_))
                    for name in names
                    if not which or name in which
                ]
            ),
            numbered(names),
        )
    if of == "group":
        lines = [lineage(config.groups, offer.group) for offer in offers]
        return (
            GROUP,
            tuple(
                [
                    (key_of(name), np.array([name in line for line in lines], dtype=np.bool_))
                    for name in _counted_groups(which, config)
                ]
            ),
            np.zeros(0, dtype=np.int64),
        )
    kinds = [
        (at, np.array([offer.kind == kind for offer in offers], dtype=np.bool_))
        for at, kind in enumerate(KINDS, 1)
        if not which or kind in which
    ]
    # By the number of the kind; 0 is none.
    return KIND, tuple(kinds), np.array([-1, *numbered(KINDS).tolist()], dtype=np.int64)


def _counted_groups(which: Sequence[str], config: Config) -> list[str]:
    return [group.id for group in config.groups if not which or group.id in which]


def _runs(of: str, which: Sequence[str], config: Config) -> tuple[tuple[int, ...], ...]:
    """Of a limit of groups of the configuration: in which of them a contact counts, by its offer, then by the group
    that an offer named that is not there any more."""
    if of != "group":
        return ()
    places = {name: at for at, name in enumerate(_counted_groups(which, config))}
    named = [*(offer.group for offer in config.offers), *((group.id,) for group in config.groups)]
    return tuple(
        [tuple([places[name] for name in lineage(config.groups, names) if name in places]) for names in named]
    )


def scopes_of(limit: Limit) -> dict[int, tuple[int, ...]]:
    """The scopes of a limit by offer."""
    found: dict[int, tuple[int, ...]] = {}
    for scope, mask in limit.groups:
        for offer in np.flatnonzero(mask).tolist():
            found[offer] = (*found.get(offer, ()), scope)
    return found


def again_counts(limit: Limit) -> bool:
    """Whether an offer that was resumed counts, by what came of it."""
    return not limit.served and not limit.contacts
