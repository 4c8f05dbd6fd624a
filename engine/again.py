"""Decisions made again, from their records and the configuration that decided.

    what was seen → inputs, rules                     compared with those of the record
    estimates, holds, prices, surcharge, gate, seed → scores → draw → slate

The estimates are those of the record, so the policy need not be there any more; everything before and after them is
computed anew, by the code that decides. Whatever comes out otherwise is named.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.basis import Basis, recorded
from engine.catalogue import Catalogue
from engine.choosing import drawn, weighed
from engine.experiment_arms import arms_of, batch_of
from engine.record import Choice, DecisionRecord
from engine.valuecode import ValueCodeError, decoded


class Difference(NamedTuple):
    """What came out otherwise."""

    what: str
    """The part of the record."""
    recorded: str
    again: str


def missing(catalogue: Catalogue, one: DecisionRecord) -> str:
    """What a record lacks for its decision to be made again with this configuration, in words; "" if nothing."""
    if one.config_version != catalogue.version:
        return f"it was decided by configuration {one.config_version}, this one is {catalogue.version}"
    if one.resumed:
        return "it went on with an open offer: nothing was drawn that could be drawn again"
    if one.basis is None:
        return "its record is of an earlier release, which did not keep what a decision rests on"
    if one.transform_version != catalogue.transform.version:
        return (
            f"its inputs are of transform {one.transform_version:016x}, and this release makes "
            f"{catalogue.transform.version:016x} of the same configuration"
        )
    try:
        decoded([one.basis.seen], len(catalogue.rule_columns))
    except ValueCodeError as error:
        return f"what it saw cannot be read: {error}"
    return ""


def made_again(catalogue: Catalogue, kept: Sequence[DecisionRecord]) -> list[list[Difference]]:
    """What of each decision comes out otherwise than its record says; nothing, if it is the same bit for bit.

    Of none of them anything may be `missing`.
    """
    bases = [one.basis or Basis() for one in kept]
    offers = len(catalogue.offers)
    values = decoded([basis.seen for basis in bases], len(catalogue.rule_columns))
    x = catalogue.transform.apply(np.ascontiguousarray(values[:, : len(catalogue.columns)]))
    verdicts = catalogue.rule_batch.evaluate(values)
    mean, sd, unknown, prices = recorded(bases, offers)
    for at, one in enumerate(kept):
        for choice in one.slate:
            # The floor may have drawn one that was no candidate.
            offer = catalogue.index_of_key.get(choice.key)
            if offer is not None:
                mean[at, offer], sd[at, offer], unknown[at, offer] = choice.mean, choice.sd, False
    channels = np.array([one.channel for one in kept], np.int64)
    arms = batch_of(arms_of(catalogue.experiments, [one.customer for one in kept], [one.time_ms for one in kept]))
    held = [basis.holds for basis in bases]
    weights = weighed(
        catalogue,
        mean,
        sd,
        verdicts,
        channels,
        np.array([one.time_ms for one in kept], np.int64),
        held=held,
        surcharges=np.array([basis.surcharge for basis in bases]),
        prices=prices,
        arms=arms,
        unknown=unknown,
    )
    score = weights.score
    for at, basis in enumerate(bases):
        for offer, value in basis.values:
            if not unknown[at, offer]:
                score[at, offer] += value
    slates, _ = drawn(
        catalogue,
        weights,
        channels,
        np.array([one.limit for one in kept], np.int64),
        [one.seed for one in kept],
        held=held,
        gates=np.array([basis.gate for basis in bases]),
        arms=arms,
    )
    found = []
    for at, one in enumerate(kept):
        differences = []
        if x[at].tobytes() != one.x:
            differences.append(_vectors(catalogue, one.x, x[at]))
        bits = verdicts[at].held, verdicts[at].failed
        if bits != (one.rules_held, one.rules_failed):
            differences.append(_rules(catalogue, one, *bits))
        row = slates.picks[at].tolist(), slates.propensities[at].tolist()
        slate, nothing = _slate(catalogue, one.time_ms, *row, score[at], mean[at], sd[at])
        if slate != one.slate:
            differences.append(Difference("slate", _told(catalogue, one.slate), _told(catalogue, slate)))
        if nothing != one.nothing_propensity:
            differences.append(Difference("propensity of nothing", repr(one.nothing_propensity), repr(nothing)))
        found.append(differences)
    return found


def _slate(
    catalogue: Catalogue,
    time_ms: int,
    picks: Sequence[int],
    propensities: Sequence[float],
    score: NDArray[np.float64],
    mean: NDArray[np.float32],
    sd: NDArray[np.float32],
) -> tuple[tuple[Choice, ...], float]:
    """The slate as a record has it, and the propensity of nothing."""
    slate: list[Choice] = []
    for offer, propensity in zip(picks, propensities, strict=True):
        if offer < 0 or offer == len(catalogue.offers):
            return tuple(slate), propensity
        end_ms = 0 if offer in catalogue.silent.offers else time_ms + catalogue.windows_ms[offer]
        estimate = float(np.float32(score[offer])), float(mean[offer]), float(sd[offer])
        slate.append(Choice(catalogue.offer_keys[offer], propensity, *estimate, end_ms))
    return tuple(slate), 0.0


def _told(catalogue: Catalogue, slate: Sequence[Choice]) -> str:
    rows = [
        f"{catalogue.offer_name(one.key)} (propensity {one.propensity!r}, score {one.score!r}, mean {one.mean!r}, "
        f"sd {one.sd!r}, until {one.window_end_ms})"
        for one in slate
    ]
    return ", ".join(rows) or "nothing"


def _vectors(catalogue: Catalogue, kept: bytes, again: NDArray[np.int8]) -> Difference:
    was = np.frombuffer(kept, np.int8)
    if len(was) != len(again):
        return Difference("inputs", f"{len(was)} columns", f"{len(again)} columns")
    names = catalogue.input_names
    at = [int(column) for column in np.flatnonzero(was != again)]
    return Difference(
        "inputs",
        ", ".join(f"{names[column]} {was[column]}" for column in at),
        ", ".join(f"{names[column]} {again[column]}" for column in at),
    )


def _rules(catalogue: Catalogue, one: DecisionRecord, held: bytes, failed: bytes) -> Difference:
    def told(held: bytes, failed: bytes) -> list[str]:
        yes, error = int.from_bytes(held, "little"), int.from_bytes(failed, "little")
        names = catalogue.rules.expressions
        return [
            f"{name!r} {'held' if yes >> at & 1 else 'failed' if error >> at & 1 else 'did not hold'}"
            for at, name in enumerate(names)
        ]

    pairs = zip(told(one.rules_held, one.rules_failed), told(held, failed), strict=True)
    other = [(was, now) for was, now in pairs if was != now]
    return Difference("rules", ", ".join(was for was, _ in other), ", ".join(now for _, now in other))
