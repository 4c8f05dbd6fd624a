"""What an acceptance adds to the score, customer by customer: weights and risk by rule.

    gain = value × weight − risk
    weight = lever × context weight × weights of kind and category × the factors of all rules that hold

The weight is held at WEIGHT_TIMES_MAX. Risk is the expected loss of both sides, of an acceptance as the value is; no
weight scales it. A factor whose rule cannot be evaluated is not given, a risk whose rule cannot be evaluated counts.

The bits of these rules stand in the record behind those of the offers, of `exploration.never` and of points, so that
what anybody's gain was can be told from the record and the configuration.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from engine.config_schema import Config
from engine.limits import WEIGHT_TIMES_MAX
from engine.rules import Rules, Verdict
from engine.weights_schema import KIND_WEIGHTS
from models.compiled import FLOATS_1D, FLOATS_2D, INTS, compiled, read_only

_WORDS: Final = read_only(types.uint64, 2)
_BOUND: Final = float(WEIGHT_TIMES_MAX)
_BITS: Final = 64

Floats = NDArray[np.float64]
Source = Literal["lever", "context", "weight", "risk_customer", "risk_company"]


class Effect(NamedTuple):
    """What a rule does to an offer."""

    rule: int
    offer: int
    source: Source
    name: str
    factor: float
    """1 of a risk."""
    risk: float
    """0 of a factor."""


class Told(NamedTuple):
    """A factor or a loss as it was in one decision."""

    source: Source
    name: str
    """Of the rule, or of what it is declared for."""
    rule: str
    """Its expression; empty if it is for everybody."""
    amount: float
    """The factor, or the loss in the catalogue's currency."""


class Weighing:
    """Weights and risks of one configuration."""

    def __init__(self, config: Config, rules: Rules, words: int) -> None:
        """`words` are those of 64 rules each in which rule bits are given."""
        self._config, self._rules, self._words = config, rules, words
        self._index = {expression: at for at, expression in enumerate(rules.expressions)}
        offers = config.offers
        self.values: Final = np.array([offer.value for offer in offers])
        self.declared: Final = np.array([offer.risk.customer + offer.risk.company for offer in offers])
        """(offers,) risk for everybody."""
        self.weights: Final = np.array(
            [
                [o.lever * o.context_weight.get(c.id, 1.0) * config.weights.of(o) for o in offers]
                for c in config.channels
            ]
        )
        """(channels, offers) weights for everybody."""
        # Worth times lever times context weight, in this order: so it was before there were weights, to the last bit.
        self.gain: Final = (
            np.array(
                [
                    [o.value * o.lever * o.context_weight.get(c.id, 1.0) * config.weights.of(o) for o in offers]
                    for c in config.channels
                ]
            )
            - self.declared
        )
        """(channels, offers) gains of whoever no rule holds for."""
        self.effects: Final = tuple(self._effects())
        self._rule = np.array([effect.rule for effect in self.effects], np.int64)
        self._offer = np.array([effect.offer for effect in self.effects], np.int64)
        self._factor = np.array([effect.factor for effect in self.effects], np.float64)
        self._risk = np.array([effect.risk for effect in self.effects], np.float64)

    def _effects(self) -> list[Effect]:
        found: list[Effect] = []
        for at, offer in enumerate(self._config.offers):
            factors: list[tuple[Source, Any]] = [("lever", rule) for rule in offer.levers]
            factors += [("context", rule) for rule in offer.context_weights]
            factors += [("weight", rule) for rule in self._config.weights.rules if rule.of(offer)]
            found += [
                Effect(self._index[rule.when], at, source, rule.name, rule.factor, 0.0) for source, rule in factors
            ]
            for risk in offer.risk.rules:
                sides: list[tuple[Source, float]] = [("risk_customer", risk.customer), ("risk_company", risk.company)]
                found += [
                    Effect(self._index[risk.when], at, side, risk.name, 1.0, loss) for side, loss in sides if loss
                ]
        return found

    def gains(self, words: NDArray[np.uint64], verdicts: Sequence[Verdict], channels: NDArray[np.int64]) -> Floats:
        """(B, offers) what one sure acceptance adds to each score. `words` (B, W) are the rules that held."""
        return self._computed(words, verdicts, channels)[0]

    def row(self, verdict: Verdict, channel: int) -> tuple[Floats, Floats]:
        """(gains, weights) of the offers (offers,) in one decision."""
        words = np.frombuffer(verdict.held.ljust(8 * self._words, b"\0"), np.uint64).reshape(1, -1)
        gains, weights = self._computed(words, [verdict], np.array([channel], np.int64))
        return gains[0], weights[0]

    def unweighted(self, verdicts: Sequence[Verdict], channels: NDArray[np.int64]) -> Floats:
        """(B, offers) what one sure acceptance adds where no weight counts: value − risk."""
        if not self.effects:
            return np.broadcast_to(self.values - self.declared, (len(verdicts), len(self.values)))
        held = b"".join([verdict.held.ljust(8 * self._words, b"\0") for verdict in verdicts])
        words = np.frombuffer(held, np.uint64).reshape(len(verdicts), -1)
        gains, weights = self._computed(words, verdicts, channels)
        return self.values - (self.values * weights - gains)

    def _computed(
        self, words: NDArray[np.uint64], verdicts: Sequence[Verdict], channels: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        failed = np.zeros_like(words)
        if any(verdict.failed for verdict in verdicts):
            size = 8 * words.shape[1]
            joined = b"".join([verdict.failed.ljust(size, b"\0") for verdict in verdicts])
            failed = np.frombuffer(joined, np.uint64).reshape(words.shape)
        found: tuple[Floats, Floats] = _gains(
            words,
            failed,
            np.ascontiguousarray(channels, np.int64),
            self.gain,
            self.weights,
            self.values,
            self.declared,
            self._rule,
            self._offer,
            self._factor,
            self._risk,
        )
        return found

    def told(self, verdict: Verdict, channel: int, offer: int) -> list[Told]:
        """Every factor, then every loss of an offer in one decision; factors of 1 for everybody are left out."""
        config, one = self._config, self._config.offers[offer]
        by_kind = config.weights.kinds.get(one.kind, KIND_WEIGHTS.get(one.kind, 1.0))
        channel_id = config.channels[channel].id
        everybody: list[tuple[Source, str, float, float]] = [
            ("lever", "lever", one.lever, 1.0),
            ("context", channel_id, one.context_weight.get(channel_id, 1.0), 1.0),
            ("weight", f"kind {one.kind}", by_kind, 1.0),
            ("weight", f"category {one.category}", config.weights.categories.get(one.category, 1.0), 1.0),
            ("risk_customer", "risk", one.risk.customer, 0.0),
            ("risk_company", "risk", one.risk.company, 0.0),
        ]
        found = [Told(source, name, "", amount) for source, name, amount, nothing in everybody if amount != nothing]
        held, failed = (int.from_bytes(bits, "little") for bits in (verdict.held, verdict.failed))
        for effect in self.effects:
            if effect.offer != offer or not (held | (failed if effect.risk else 0)) >> effect.rule & 1:
                continue
            rule = self._rules.expressions[effect.rule]
            amount = effect.risk if effect.source.startswith("risk") else effect.factor
            found.append(Told(effect.source, effect.name or rule, rule, amount))
        return sorted(found, key=lambda one: one.source.startswith("risk"))


@compiled(_WORDS, _WORDS, INTS, FLOATS_2D, FLOATS_2D, FLOATS_1D, FLOATS_1D, INTS, INTS, FLOATS_1D, FLOATS_1D)
def _gains(
    words: Any,
    failed: Any,
    channels: Any,
    gain: Any,
    weights: Any,
    values: Any,
    declared: Any,
    rules: Any,
    offers: Any,
    factors: Any,
    risks: Any,
) -> Any:
    rows, count = len(words), len(values)
    found, scaled = np.empty((rows, count)), np.empty((rows, count))
    losses, touched = np.empty(count), np.empty(count, np.bool_)
    for row in range(rows):
        found[row] = gain[channels[row]]
        scaled[row] = weights[channels[row]]
        losses[:] = declared
        touched[:] = False
        for at in range(len(rules)):
            word, bit = rules[at] // _BITS, np.uint64(1) << np.uint64(rules[at] % _BITS)
            # Protect when unknown: a risk of which it is not known whether it is there is there.
            bits = words[row, word] | failed[row, word] if risks[at] > 0.0 else words[row, word]
            if bits & bit:
                offer = offers[at]
                # Held after each: what comes to zero in between stays zero, and nothing overflows.
                scaled[row, offer] = min(scaled[row, offer] * factors[at], _BOUND)
                losses[offer] += risks[at]
                touched[offer] = True
        for offer in range(count):
            if touched[offer]:
                found[row, offer] = values[offer] * scaled[row, offer] - losses[offer]
    return found, scaled
