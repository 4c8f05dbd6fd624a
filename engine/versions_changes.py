"""For whom another configuration would have decided otherwise, on decisions that were really made.

What is compared: which offers might have been made, and which would have been first by its expected score (without the
dice of exploration), under both configurations, on what the record holds of each decision: all that its rules and
inputs saw, what contact policy and budgets kept back, what contacts and budgets cost then. Both get the beliefs of one
policy. What cannot be told from the record is left out and counted, with the reason.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.basis import Basis, recorded
from engine.bridge import Bridge
from engine.catalogue import Catalogue
from engine.holds import Situation
from engine.record import DecisionRecord
from engine.valuecode import decoded
from models import Policy

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

NOTHING: Final = "nothing"
"""In the place of an offer: silence, or that none may be made."""
_NEVER: Final = -np.inf
_UNSEEN: Final = "their records are of an earlier release, which did not keep what a decision saw"


class Recorded(NamedTuple):
    """A decision, and the configuration that made it."""

    record: DecisionRecord
    catalogue: Catalogue


@dataclass(slots=True)
class Shift:
    """How decisions of a channel came out otherwise."""

    compared: int = 0
    other_eligible: int = 0
    """That have another set of offers which might be made."""
    other_first: int = 0
    """That have another first offer."""


@dataclass(slots=True)
class OfferShift:
    """In how many decisions an offer might be made, and in how many it is first, before and after."""

    eligible_before: int = 0
    eligible_after: int = 0
    first_before: int = 0
    first_after: int = 0

    @property
    def changed(self) -> bool:
        """Whether the counts differ."""
        return (self.eligible_before, self.first_before) != (self.eligible_after, self.first_after)


@dataclass(slots=True)
class Changes:
    """What changes, for how many."""

    total: Shift = field(default_factory=Shift)
    channels: dict[str, Shift] = field(default_factory=dict)
    offers: dict[str, OfferShift] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    """Decisions that cannot be compared, by reason."""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a configuration makes of n decisions, over all offers of both configurations in order of their ids."""

    eligible: Bools
    """(n, offers)"""
    first: NDArray[np.int64]
    """(n,) an offer; -1 for nothing."""
    known: list[str]
    """(n,) "", or why it cannot be told."""


def changed_decisions(old: Catalogue, new: Catalogue, records: Sequence[Recorded], policy: Policy) -> Changes:
    """For whom `new` would decide otherwise than `old`, with the beliefs of `policy`.

    Decisions whose inputs are not those of the policy, or whose records do not tell what they saw, are left out and
    counted.
    """
    changes = Changes(remarks=_remarks(old, new))
    names = sorted({*old.offer_ids, *new.offer_ids})
    changes.offers = {name: OfferShift() for name in names}
    by_version: dict[str, list[Recorded]] = {}
    for one in records:
        if one.record.transform_version != policy.transform_version:
            changes.left_out["decided with other inputs of the model than those of the policy in service"] += 1
            continue
        by_version.setdefault(one.catalogue.version, []).append(one)
    for same in by_version.values():
        made_with = same[0].catalogue
        rows = [one.record for one in same]
        before, after = (reckoned(target, made_with, rows, policy, names) for target in (old, new))
        _count(changes, made_with, rows, names, before, after)
    return changes


def reckoned(
    target: Catalogue, made_with: Catalogue, records: Sequence[DecisionRecord], policy: Policy, names: Sequence[str]
) -> Outcome:
    """What a configuration makes of decisions that another one made, over the offers `names`, which are sorted."""
    place = {name: at for at, name in enumerate(names)}
    columns = np.array([place[name] for name in target.offer_ids])
    count, offers = len(records), len(target.offers)
    bridge = Bridge(made_with, target)
    known = ["" if record.basis is not None and record.basis.seen else _UNSEEN for record in records]
    channels = bridge.channels[[record.channel for record in records]]
    for at in np.flatnonzero(channels < 0).tolist():
        channel = made_with.config.channels[records[at].channel].id
        known[at] = f"version {target.version} has no channel {channel!r}"
    channels = np.maximum(channels, 0)
    times = np.array([record.time_ms for record in records], np.int64)
    bases = [record.basis or Basis() for record in records]
    values = np.full((count, len(made_with.rule_columns)), np.nan)
    seen = [at for at, basis in enumerate(bases) if basis.seen]
    values[seen] = decoded([bases[at].seen for at in seen], values.shape[1])
    verdicts = target.rule_batch.evaluate(bridge.values(values))
    mean = _means(target, records, policy)
    sd = np.zeros_like(mean)
    target.silent.surely(mean, sd)
    _, _, _, prices = recorded(bases, len(made_with.offers))
    scores, _, may, _ = target.arbitration.score(
        mean,
        sd,
        verdicts,
        channels,
        times,
        0.0,
        surcharges=np.array([basis.surcharge for basis in bases]),
        prices=bridge.prices(prices),
    )
    bridge.add_values([basis.values for basis in bases], scores)
    people, placements = [record.customer for record in records], [record.placement for record in records]
    situation = Situation(people, (), verdicts, channels, placements, times)
    target.holds.keep_back(target.holds.anew(bridge.holds([basis.holds for basis in bases]), situation), may)
    score = np.full((count, len(names)), _NEVER)
    score[:, columns] = scores[:, :offers]
    eligible = np.zeros((count, len(names)), np.bool_)
    eligible[:, columns] = may[:, :offers]
    worth = np.where(eligible, score, _NEVER)
    first = worth.argmax(axis=1)
    least = 0.0 if target.config.silence else _NEVER
    first[worth[np.arange(count), first] <= least] = -1
    return Outcome(eligible, first, known)


def _means(target: Catalogue, records: Sequence[DecisionRecord], policy: Policy) -> NDArray[np.float32]:
    """(n, offers) estimates; of an offer that the policy does not know, what is declared for a new one."""
    mean = np.full((len(records), len(target.offers)), target.config.learning.prior_rate, np.float32)
    x = np.frombuffer(b"".join([record.x for record in records]), np.int8).reshape(len(records), -1)
    found, _ = policy.score(x)
    index = {name: at for at, name in enumerate(policy.offers)}
    for at, name in enumerate(target.offer_ids):
        if name in index:
            mean[:, at] = found[:, index[name]]
    return mean


def _count(
    changes: Changes,
    made_with: Catalogue,
    records: Sequence[DecisionRecord],
    names: Sequence[str],
    before: Outcome,
    after: Outcome,
) -> None:
    reasons = [one or other for one, other in zip(before.known, after.known, strict=True)]
    changes.left_out.update(reason for reason in reasons if reason)
    rows = np.array([at for at, reason in enumerate(reasons) if not reason], np.int64)
    other_eligible = (before.eligible != after.eligible).any(axis=1)
    other_first = before.first != after.first
    for at in rows.tolist():
        channel = made_with.config.channels[records[at].channel].id
        for shift in (changes.total, changes.channels.setdefault(channel, Shift())):
            shift.compared += 1
            shift.other_eligible += bool(other_eligible[at])
            shift.other_first += bool(other_first[at])
    if not len(rows):
        return
    eligible = before.eligible[rows].sum(axis=0), after.eligible[rows].sum(axis=0)
    firsts = [np.bincount(one.first[rows] + 1, minlength=len(names) + 1) for one in (before, after)]
    nothing = changes.offers.setdefault(NOTHING, OfferShift())
    nothing.first_before += int(firsts[0][0])
    nothing.first_after += int(firsts[1][0])
    for column, name in enumerate(names):
        shift_of = changes.offers[name]
        shift_of.eligible_before += int(eligible[0][column])
        shift_of.eligible_after += int(eligible[1][column])
        shift_of.first_before += int(firsts[0][column + 1])
        shift_of.first_after += int(firsts[1][column + 1])


def _remarks(old: Catalogue, new: Catalogue) -> list[str]:
    remarks = []
    if {old.transform.version, new.transform.version} - {old.transform.version}:
        remarks.append("the inputs of the model are others: what it would estimate with them is not known, so both are "
                       "given the estimates of the policy in service")  # fmt: skip
    if new.ladder.offers or old.ladder.offers:
        remarks.append("offers with points are given the estimates of their lessons alone")
    fresh = sorted(set(new.offer_ids) - set(old.offer_ids))
    if fresh:
        remarks.append(
            f"new offers are given what is declared for one without lessons "
            f"(learning.prior_rate {new.config.learning.prior_rate:g}): {', '.join(fresh[:5])}"
            + (f" and {len(fresh) - 5} more" if len(fresh) > 5 else "")
        )
    return remarks
