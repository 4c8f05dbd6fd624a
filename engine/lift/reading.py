"""Decisions and what came of them, as rows: who, when, where, and what it was worth.

The worth of an offer is its reward as attribution has it (engine.terms): the share of its stage times its value, or
what was reported. Its contact cost is subtracted, unless it was reported as not presented. Decisions within the longest
window before the end of the log are left out, all of them, in every arm alike.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.history.decisions import Decided, Written

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COUNTED = ("offers", "accepted", "declined", "fulfilled", "cancelled")
"""Counts of a visit, in the order of their columns: offers that came to a stage at the end of the log."""


@dataclass(eq=False)
class Visits:
    """The decisions of a span of time; n rows about people who are numbered."""

    names: list[str]
    """Of the people, by number."""
    people: Ints
    """(n,) number of whom a decision is about."""
    times_ms: Ints
    versions: Ints
    """(n,) index in `catalogues` of the configuration that decided."""
    catalogues: list[Catalogue]
    counts: Ints
    """(n, len(COUNTED))"""
    values: Floats
    """(n,) rewards of the offers."""
    costs: Floats
    """(n,) contact costs."""
    groups: list[str]
    """(n,) what the decisions are told apart by; "" if nothing was asked for."""
    segments: NDArray[np.uint8]
    """(n, bytes) a bit for each segment that the person was in (engine.lift.insegments); no bytes: not asked for."""
    clock_ms: int
    """The newest time in the log."""
    remarks: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.people)


async def read(
    decided: AsyncIterator[tuple[int, list[Decided]]],
    written: Written,
    by: str | None,
    title: str,
    in_segments: Callable[[Sequence[Decided]], list[bytes]] | None = None,
) -> Visits:
    """Read the decisions. Raises InvalidArgument if none can be used.

    Args:
        decided: batches from engine.history.decisions.
        written: its caveats.
        by: "channel" or the name of a fact that tells decisions apart; None: nothing does.
        title: what to call the log.
        in_segments: the bits of a batch of decisions; None: nobody asks for them.
    """
    numbers: dict[str, int] = {}
    versions: dict[str, int] = {}
    catalogues: list[Catalogue] = []
    rows: list[tuple[int, int, int]] = []
    counts: list[tuple[int, ...]] = []
    worths: list[tuple[float, float]] = []
    groups: list[str] = []
    segments: list[bytes] = []
    clock_ms = unknown = 0
    async for now_ms, batch in decided:
        clock_ms = now_ms
        bits = in_segments(batch) if in_segments else [b""] * len(batch)
        for one, own_bits in zip(batch, bits, strict=True):
            record, made_with = one.record, one.catalogue
            if made_with is None:
                unknown += 1
                continue
            version = versions.setdefault(made_with.version, len(versions))
            if version == len(catalogues):
                catalogues.append(made_with)
            stages = [offer["stage"] for offer in one.offered]
            rows.append((numbers.setdefault(record.customer, len(numbers)), record.time_ms, version))
            done = stages.count("fulfilled")
            said = [stages.count(stage) for stage in ("accepted", "declined", "cancelled")]
            counts.append((len(stages), said[0] + done, said[1], done, said[2]))
            worths.append((sum(offer["reward"] or 0.0 for offer in one.offered), _cost(one, made_with)))
            groups.append(_group(one, made_with, by))
            segments.append(own_bits)
    remarks = list(written.caveats)
    if unknown:
        remarks.append(f"left out {unknown:,} decisions of configurations that were not kept")
    window_ms = max((ms for each in catalogues for ms in each.windows_ms), default=0)
    kept = [at for at, row in enumerate(rows) if row[1] + window_ms <= clock_ms]
    if len(kept) < len(rows):
        remarks.append(f"left out {len(rows) - len(kept):,} decisions whose windows may still be open")
    if not kept:
        raise InvalidArgument(f"{title}: holds no decision that can be counted. {'; '.join(remarks)}".strip(". "))
    table = np.array([rows[at] for at in kept], np.int64)
    money = np.array([worths[at] for at in kept])
    return Visits(
        list(numbers),
        table[:, 0],
        table[:, 1],
        table[:, 2],
        catalogues,
        np.array([counts[at] for at in kept], np.int64),
        money[:, 0],
        money[:, 1],
        [groups[at] for at in kept],
        np.frombuffer(b"".join([segments[at] for at in kept]), np.uint8).reshape(len(kept), -1),
        clock_ms,
        remarks,
    )


def _cost(one: Decided, catalogue: Catalogue) -> float:
    """Contact costs of the offers that may have been seen."""
    shown = [offer["offer_key"] for offer in one.offered if offer["stage"] != "not_presented"]
    known: Sequence[int] = [catalogue.index_of_key[key] for key in shown if key in catalogue.index_of_key]
    return float(sum(catalogue.offers[at].contact_cost for at in known))


def _group(one: Decided, catalogue: Catalogue, by: str | None) -> str:
    if by is None:
        return ""
    if by == "channel":
        return catalogue.config.channels[one.record.channel].id
    facts = orjson.loads(one.record.context) if one.record.context else {}
    return str(facts[by]) if by in facts else "(not told)"
