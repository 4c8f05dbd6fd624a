"""The decision, pure: states and requests in, choices and bytes to commit out. A batch at a time.

    state → value matrix → quantised vector → rules as bit masks → posterior scores → arbitration → exploration → slate

Arbitration is P × C × V × L − contact cost: propensity, context weight, value, lever. Saying nothing takes part with
the score 0. The clock is in the requests, the dice are seeded by person, state and ledger epoch: whoever asks again
before anything has changed gets the same answer, while across people the draws are independent, as exploration needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine import ledger, record
from engine.catalogue import Catalogue
from engine.ledger import Glance
from features import HEADER_CAS_BYTES, Offset, RecordError, RecordHeader
from models import Policy, choose, dice, seed_of

NOT_DEGRADED: Final = 0
STATE_UNREADABLE: Final = 3
POLICY_UNAVAILABLE: Final = 4
"""Numbers of opportune.v1.DegradedReason."""

COLD_START_LESSONS: Final = 30.0
"""Below so many lessons an offer's estimate leans on the others, and the reasons say so."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One checked request."""

    customer: str
    channel: int
    placement: int
    facts: tuple[tuple[int, float], ...]
    """(column of the value matrix, value) of the facts given."""
    context: bytes
    """The facts as JSON, as the caller gave them."""
    limit: int
    time_ms: int
    language: str
    request_id: str
    request_hash: int


@dataclass(frozen=True, slots=True)
class Pick:
    """One offer of the slate."""

    offer: int
    propensity: float
    score: float
    mean: float
    window_end_ms: int
    explored: bool
    cold: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """A decision that is made and not yet durable."""

    ask: Ask
    picks: tuple[Pick, ...]
    nothing_propensity: float
    any_eligible: bool
    known: bool
    watermark: Offset
    latest_event_ms: int
    degraded: int
    seen: Glance
    policy_version: int
    ledger_expected: bytes
    ledger_head: bytes
    ledger_tail: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request whose id has been answered before: the decision is at `position`."""

    ask: Ask
    position: Offset
    seen: Glance


State = tuple[bytes | None, bytes | None]


def decide(
    catalogue: Catalogue, policy: Policy, asks: Sequence[Ask], states: Sequence[State], *, policy_known: bool = True
) -> list[Draft | Repeat]:
    """Decide for a batch. `states` are (features, ledger) bytes of each request's customer, None where unknown.

    A customer may be in a batch once only: two decisions from one ledger could not both be committed.
    """
    glances: list[Glance] = []
    results: list[Draft | Repeat | None] = []
    damaged: list[bool] = []
    for ask, (_, ledger_bytes) in zip(asks, states, strict=True):
        try:
            seen, ok = ledger.glance(ledger_bytes, ask.request_hash, ask.time_ms), True
        except ledger.LedgerError:
            # A damaged ledger is replaced: its revision is unknown, but compare-and-set compares its bytes as they are.
            seen, ok = Glance(0, 0, None, ()), False
        glances.append(seen)
        damaged.append(not ok)
        results.append(None if seen.repeated is None else Repeat(ask, seen.repeated, seen))
    todo = [at for at, result in enumerate(results) if result is None]
    if todo:
        drafts = _decide_new(
            catalogue,
            policy,
            [asks[at] for at in todo],
            [states[at] for at in todo],
            [glances[at] for at in todo],
            [damaged[at] for at in todo],
            policy_known,
        )
        for at, draft in zip(todo, drafts, strict=True):
            results[at] = draft
    return [result for result in results if result is not None]


def _decide_new(
    catalogue: Catalogue,
    policy: Policy,
    asks: Sequence[Ask],
    states: Sequence[State],
    glances: Sequence[Glance],
    damaged: Sequence[bool],
    policy_known: bool,
) -> list[Draft]:
    count = len(asks)
    offers = len(catalogue.offers)
    config = catalogue.config
    times = np.fromiter((ask.time_ms for ask in asks), np.int64, count)
    channels = np.fromiter((ask.channel for ask in asks), np.intp, count)
    limits = np.fromiter((ask.limit for ask in asks), np.int64, count)
    records, headers, unreadable = _headers(catalogue, states)
    values = _values(catalogue, asks, records, times)
    x = catalogue.transform.apply(values)
    verdicts = [catalogue.rules.evaluate(catalogue.variables(row)) for row in values]
    held = [verdict.held for verdict in verdicts]
    now = times[:, None]
    eligible = catalogue.masks.eligible(held) & catalogue.in_channel[channels]
    eligible &= (catalogue.starts_ms <= now) & (now < catalogue.ends_ms)

    mean, sd = policy.score(x)
    gain = catalogue.gain[channels]
    # One more column for silence: worth 0, for sure.
    score = np.zeros((count, offers + 1))
    score[:, :offers] = mean * gain - catalogue.costs
    spread = np.zeros((count, offers + 1))
    if config.exploration.method == "thompson":
        spread[:, :offers] = sd * np.abs(gain) * config.exploration.strength
    may = np.empty((count, offers + 1), dtype=bool)
    may[:, :offers] = eligible
    may[:, offers] = config.silence

    seeds = [
        seed_of(ask.customer.encode(), data[:HEADER_CAS_BYTES] if data is not None else b"", seen.epoch)
        for ask, data, seen in zip(asks, records, glances, strict=True)
    ]
    width = int(limits.max())
    slates = choose(
        score,
        spread,
        may,
        limits,
        dice(np.array(seeds, dtype=np.uint64), width),
        candidates_max=config.exploration.candidates,
        floor=config.exploration.floor if config.exploration.method == "thompson" else 0.0,
        silence=offers if config.silence else None,
    )
    explored = _explored(score, may, slates.picks)
    picks_rows = slates.picks.tolist()
    propensity_rows = slates.propensities.tolist()
    any_eligible: list[bool] = eligible.any(axis=1).tolist()
    cold: list[bool] = (policy.lessons < COLD_START_LESSONS).tolist()

    drafts = []
    for at, ask in enumerate(asks):
        picks: list[Pick] = []
        rows: list[record.Choice] = []
        opening: list[tuple[int, int]] = []
        nothing = 0.0
        for place, offer in enumerate(picks_rows[at]):
            if offer < 0 or offer == offers:
                # Silence was drawn, or nothing was left to draw (propensity 0).
                nothing = propensity_rows[at][place]
                break
            end_ms = ask.time_ms + catalogue.windows_ms[offer]
            propensity, worth, likely = propensity_rows[at][place], float(score[at, offer]), float(mean[at, offer])
            key = catalogue.offer_keys[offer]
            picks.append(
                Pick(offer, propensity, worth, min(max(likely, 0.0), 1.0), end_ms, explored[at][place], cold[offer])
            )
            rows.append(record.Choice(key, propensity, worth, likely, float(sd[at, offer]), end_ms))
            opening.append((key, end_ms))
        degraded = STATE_UNREADABLE if unreadable[at] or damaged[at] else NOT_DEGRADED
        if not degraded and not policy_known:
            degraded = POLICY_UNAVAILABLE
        header = headers[at]
        ledger_bytes = states[at][1]
        head, tail = ledger.opened(
            None if damaged[at] else ledger_bytes, glances[at], ask.request_hash, ask.time_ms, opening
        )
        watermark = header.watermark if header is not None else Offset.ZERO
        latest_ms = max(header.latest_event_ms, 0) if header is not None else 0
        drafts.append(
            Draft(
                ask=ask,
                picks=tuple(picks),
                nothing_propensity=nothing,
                any_eligible=any_eligible[at],
                known=header is not None,
                watermark=watermark,
                latest_event_ms=latest_ms,
                degraded=degraded,
                seen=glances[at],
                policy_version=policy.version,
                ledger_expected=(ledger_bytes or b"")[: ledger.CAS_BYTES],
                ledger_head=head,
                ledger_tail=tail,
                record=record.DecisionRecord(
                    ask.time_ms,
                    seeds[at],
                    catalogue.version,
                    catalogue.transform.version,
                    policy.version,
                    watermark,
                    latest_ms,
                    ask.channel,
                    ask.placement,
                    degraded,
                    header is not None,
                    ask.limit,
                    ask.customer,
                    ask.request_id,
                    ask.context,
                    x[at].tobytes(),
                    held[at],
                    verdicts[at].failed,
                    nothing,
                    tuple(rows),
                ).pack(),
            )
        )
    return drafts


def _headers(
    catalogue: Catalogue, states: Sequence[State]
) -> tuple[list[bytes | None], list[RecordHeader | None], list[bool]]:
    """(records, headers, damaged). A record that cannot be read counts as none: the decision is made from defaults."""
    records: list[bytes | None] = []
    headers: list[RecordHeader | None] = []
    unreadable = []
    for data, _ in states:
        header = None
        try:
            if data is not None:
                header = catalogue.layout.header(data)
            unreadable.append(False)
        except RecordError:
            unreadable.append(True)
        headers.append(header)
        records.append(data if header is not None else None)
    return records, headers, unreadable


def _values(
    catalogue: Catalogue, asks: Sequence[Ask], records: Sequence[bytes | None], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    features = len(catalogue.layout.names)
    values = np.empty((len(asks), len(catalogue.columns)))
    values[:, :features] = catalogue.layout.read(records, times)
    values[:, features:] = catalogue.fact_defaults
    for at, ask in enumerate(asks):
        for column, value in ask.facts:
            values[at, column] = value
    return values


def _explored(score: NDArray[np.float64], may: NDArray[np.bool_], picks: NDArray[np.int16]) -> list[list[bool]]:
    """(B, K) whether something else, not yet in the slate, was expected to be worth more than the pick."""
    left = np.where(may, score, -np.inf)
    rows = np.arange(len(score))
    columns = []
    for place in range(picks.shape[1]):
        pick = picks[:, place]
        columns.append((score[rows, pick] < left.max(axis=1)) & (pick >= 0))
        left[rows, pick] = -np.inf
    explored: list[list[bool]] = np.stack(columns, axis=1).tolist()
    return explored
