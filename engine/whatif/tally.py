"""How scenarios differ from the first of them: counted while a log goes by, in bounded memory a customer."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.rulebatch import RuleBatch
from engine.rules import Rules
from engine.whatif.period import Decisions
from engine.whatif.scenario import Decided, Estimates, Scenario
from engine.whatif.turns import Turn

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EVERYBODY: Final = "(everybody)"


class Counts:
    """Of one scenario, by the parts that people fall into: everybody, channels, segments."""

    def __init__(self, parts: int, offers: int) -> None:
        self.silent = np.zeros(parts, np.int64)
        self.other_first = np.zeros(parts, np.int64)
        """Decisions whose first offer is another one than the first scenario's."""
        self.other_slate = np.zeros(parts, np.int64)
        self.worth = np.zeros(parts)
        self.shown = np.zeros(offers, np.int64)
        self.shown_first = np.zeros(offers, np.int64)
        self._reached = np.zeros((parts, 1024), np.bool_)

    def reach(self, rows: Ints, parts: Bools, offered: Bools) -> None:
        """Remember who of `rows` (n,), the numbers of people, was offered something, by part (n, parts)."""
        if rows.max(initial=-1) >= self._reached.shape[1]:
            wider = np.zeros((len(self.silent), 2 * int(rows.max()) + 2), np.bool_)
            wider[:, : self._reached.shape[1]] = self._reached
            self._reached = wider
        for part in range(len(self.silent)):
            self._reached[part, rows[offered & parts[:, part]]] = True

    @property
    def reached(self) -> Ints:
        """(parts,) people who were offered something."""
        found: Ints = self._reached.sum(axis=1)
        return found


class Tally:
    """Counts of all scenarios, the first being what the others are compared with."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self.scenarios = scenarios
        base = scenarios[0].catalogue
        self.channels = [channel.id for channel in base.config.channels]
        self.segments = [segment.name for segment in base.config.segments]
        self.parts = [EVERYBODY, *self.channels, *self.segments]
        self.offers = list(dict.fromkeys(offer for each in scenarios for offer in each.catalogue.offer_ids))
        self.decisions = np.zeros(len(self.parts), np.int64)
        self.as_logged = 0
        """Decisions whose first offer under the first scenario is the one that was made."""
        self.counts = [Counts(len(self.parts), len(self.offers)) for _ in scenarios]
        self._people: dict[str, int] = {}
        self._seen = Counts(len(self.parts), 0)
        number = {offer: at for at, offer in enumerate(self.offers)}
        # The last one stands for no offer: picks are padded with -1.
        self._numbers = [np.array([*(number[o] for o in each.catalogue.offer_ids), -1]) for each in scenarios]
        self._in_segments = _InSegments(base)
        self._base = base

    @property
    def people(self) -> Ints:
        """(parts,) people who were decided for."""
        return self._seen.reached

    def add(self, asked: Decisions, turns: Sequence[Turn] = ()) -> None:
        """Decide in all scenarios and count. All must have the channels. `turns` are those of a walk."""
        bridge = self.scenarios[0].bridge(asked.made_with)
        parts = np.zeros((len(asked), len(self.parts)), np.bool_)
        parts[:, 0] = True
        parts[np.arange(len(asked)), 1 + bridge.channels[asked.channels]] = True
        parts[:, 1 + len(self.channels) :] = self._in_segments.of(bridge.values(asked.values))
        rows = np.fromiter(self._rows(asked.people), np.int64, len(asked))
        self.decisions += parts.sum(axis=0)
        self._seen.reach(rows, parts, parts[:, 0])
        first: Ints | None = None
        estimates = Estimates()
        for scenario, numbers, counts in zip(self.scenarios, self._numbers, self.counts, strict=True):
            decided = scenario.decide(asked, estimates, turns)
            picks = numbers[decided.picks]
            if first is None:
                first = picks
                self.as_logged += self._like_the_log(asked, decided)
            width = max(first.shape[1], picks.shape[1])
            same = (_wide(first, width) == _wide(picks, width)).all(axis=1)
            offered = picks[:, 0] >= 0
            each = np.column_stack([~offered, picks[:, 0] != first[:, 0], ~same]).astype(np.float64)
            silent, other_first, other_slate = np.rint(each.T @ parts).astype(np.int64)
            counts.silent += silent
            counts.other_first += other_first
            counts.other_slate += other_slate
            counts.worth += decided.worth @ parts
            counts.shown += np.bincount(picks[picks >= 0], minlength=len(self.offers))
            counts.shown_first += np.bincount(picks[offered, 0], minlength=len(self.offers))
            counts.reach(rows, parts, offered)

    def _rows(self, people: Iterable[str]) -> Iterable[int]:
        known = self._people
        for person in people:
            yield known.setdefault(person, len(known))

    def _like_the_log(self, asked: Decisions, decided: Decided) -> int:
        keys = np.array([*self._base.offer_keys, 0])[decided.picks[:, 0]]
        return int((keys == asked.slates[:, 0]).sum())


class _InSegments:
    """Which segments people were in when they were decided for: the rules, on what the decision saw."""

    def __init__(self, base: Catalogue) -> None:
        samples: dict[str, Any] = {}
        for column in base.rule_columns:
            samples[column.name] = {"number": 0.0, "flag": False, "text": "", "hashed": ""}[column.kind]
        rules = Rules([segment.when for segment in base.config.segments], samples)
        self._bits = [rules.mask([segment.when]) for segment in base.config.segments]
        self._batch = RuleBatch(rules, base.rule_columns)

    def of(self, values: Floats) -> Bools:
        """(n, segments)"""
        if not self._bits:
            return np.zeros((len(values), 0), np.bool_)
        held = [int.from_bytes(verdict.held, "little") for verdict in self._batch.evaluate(values)]
        return np.array([[bool(one & bit) for bit in self._bits] for one in held]).reshape(len(values), -1)


def _wide(picks: Ints, width: int) -> Ints:
    return np.pad(picks, ((0, 0), (0, width - picks.shape[1])), constant_values=-1)

