"""Weights by rule equal a plain loop; what they did follows from the record; whoever reads records weighs alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.again import made_again
from engine.basis import Basis, BasisError
from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.decide import decide
from engine.drafts import Ask, Draft
from engine.holds import Hold
from engine.learner import prior_policy
from engine.limits import WEIGHT_TIMES_MAX
from engine.record import DecisionRecord
from engine.rules import Verdict
from engine.store import StoreError
from models import first_probabilities
from tests.small_engine import START_MS, SmallEngine

FACTOR = st.sampled_from([0.0, 0.5, 1.0, 3.0, 1e3, 1e6])


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 70))
def test_gains_are_those_of_a_loop_and_their_parts_are_told(data: st.DataObject, offers: int, rules: int) -> None:
    names = [f"x == {at}.0" for at in range(rules)]
    rule = st.sampled_from(names)
    text, weights = "", ""
    wide = data.draw(st.lists(st.tuples(rule, FACTOR), max_size=3))
    for when, factor in wide:
        weights += f"{{when: {when}, factor: {factor}, categories: [even]}}, "
    declared = []
    for at in range(offers):
        levers = data.draw(st.lists(st.tuples(rule, FACTOR), max_size=4))
        risks = data.draw(st.lists(st.tuples(rule, st.sampled_from([1.0, 7.5])), max_size=3))
        lever, value = data.draw(st.sampled_from([1.0, 2.5])), data.draw(st.sampled_from([-3.0, 40.0]))
        category = "even" if at % 2 == 0 else "odd"
        declared.append((levers, risks, lever, value, category))
        written = ", ".join(f"{{when: {when}, factor: {factor}}}" for when, factor in levers)
        losses = ", ".join(f"{{when: {when}, company: {loss}}}" for when, loss in risks)
        text += f"""
  - id: o{at}
    value: {value}
    lever: {lever}
    category: {category}
    eligibility: [{names[at % rules]}]
    levers: [{written}]
    risk: {{customer: 2, rules: [{losses}]}}
    treatments: [{{text: t}}]"""
    whole = f"""opportune: 1
name: n
channels: [{{id: web}}]
context: [{{name: x, type: number}}]
weights: {{categories: {{even: 1.5}}, rules: [{weights}]}}
offers:{text}
""".encode()
    catalogue = Catalogue.compile(parse(whole), version_of(whole))
    size = (len(catalogue.rules) + 7) // 8
    bits = st.integers(0, 2 ** len(catalogue.rules) - 1)
    held, failed = data.draw(bits), data.draw(bits)
    failed &= ~held
    verdict = Verdict(held.to_bytes(size, "little"), failed.to_bytes(size, "little") if failed else b"")
    gains, scaled = catalogue.weighing.row(verdict, 0)
    index = {expression: at for at, expression in enumerate(catalogue.rules.expressions)}
    for at, (levers, risks, lever, value, category) in enumerate(declared):
        weight, loss = lever * (1.5 if category == "even" else 1.0), 2.0
        for when, factor in [*levers, *(wide if category == "even" else [])]:
            if held >> index[when] & 1:
                weight = min(weight * factor, WEIGHT_TIMES_MAX)
        loss += sum(lost for when, lost in risks if (held | failed) >> index[when] & 1)
        assert scaled[at] == pytest.approx(weight, rel=1e-12)
        assert gains[at] == pytest.approx(value * weight - loss, rel=1e-12, abs=1e-9)
        told = catalogue.weighing.told(verdict, 0, at)
        assert sum(one.amount for one in told if one.source.startswith("risk")) == pytest.approx(loss)
        factors = [one.amount for one in told if not one.source.startswith("risk")]
        if np.prod(factors) <= WEIGHT_TIMES_MAX and max(np.cumprod(factors), default=0) <= WEIGHT_TIMES_MAX:
            assert np.prod(factors) == pytest.approx(weight)
    zeros = np.zeros(1, np.int64)
    believed = np.full((1, offers), 0.25, np.float32)
    score, spread, _, _ = catalogue.arbitration.score(believed, believed, [verdict], zeros, zeros)
    assert (score[0, :-1] == 0.25 * gains).all() and (spread[0, :-1] == 0.25 * np.abs(gains)).all()


def test_fewer_than_nobody_and_more_than_everybody_are_nobody_and_everybody() -> None:
    """An offer that is thought to be taken by fewer than nobody must not be ruled out by that for good."""
    engine = SmallEngine()
    catalogue = engine.catalogue
    verdict, zeros = Verdict(b"\xff" * ((len(catalogue.rules) + 7) // 8), b""), np.zeros(1, np.int64)
    sd = np.full((1, 3), 0.05, np.float32)
    costs = catalogue.costs
    believed = np.array([[-0.4, 1.3, np.nan]], np.float32)
    score, spread, may, _ = catalogue.arbitration.score(believed, sd, [verdict], zeros, zeros)
    assert score[0, :2].tolist() == [-costs[0], 100.0 - costs[1]] and np.isnan(score[0, 2])
    assert spread[0, :3] == pytest.approx(0.05 * catalogue.gain[0])
    believed[0, 1] = 0.0
    score, spread, may, _ = catalogue.arbitration.score(believed, sd, [verdict], zeros, zeros)
    [shares] = first_probabilities(score, spread, may)
    assert shares[0] > 0.05 and shares[2] == 0.0


def test_without_rules_nothing_is_weighed_by_row() -> None:
    engine = SmallEngine()
    assert engine.catalogue.weighing.effects == () and engine.catalogue.caps is None
    assert engine.catalogue.gain.tolist() == [[40.0, 100.0, 30.0]] * 2 and engine.catalogue.holds.names == ()


@pytest.mark.parametrize("values", [(), ((2, 41.25),), ((0, 0.0), (7, 1e12))])
@pytest.mark.parametrize("parameters", [b"", b'{"loan": {"amount": 5}}'])
def test_a_basis_keeps_what_answers_were_worth(values: tuple[tuple[int, float], ...], parameters: bytes) -> None:
    basis = Basis(bytes(10), (Hold(3, 7),), ((1, 2.5),), 0.5, 0.25, parameters, b"seen", values)
    packed = basis.pack()
    assert Basis.unpack(packed) == basis
    for wrong in (packed + b"\0", packed + b"\1\0", packed[:-1]):
        with pytest.raises(BasisError):
            Basis.unpack(wrong)


EVERYTHING = b"""
opportune: 1
name: n
limit: 4
channels: [{id: web}]
context:
  - {name: intent, type: text, values: [a, b, c], input: {kind: one_hot}}
  - {name: age, type: number, range: [0, 100], input: {kind: linear, range: [0, 100]}}
slate: {most_per: {category: 2}}
guard: [{name: young, when: age < 18.0}]
offers:
%s
  - id: ask
    kind: question
    value: 1
    asks: {fact: intent, answers: {a: 0.4, b: 0.4, c: 0.1}}
    treatments: [{text: t}]
  - {id: hush, kind: silence, value: 0.5, treatments: [{text: t}]}
  - {id: both, kind: service, category: x0, value: 20, bundle: {with: [o1, o2]}, treatments: [{text: t}]}
exploration: {method: %s, candidates: 4, floor: %s, budget: {share: 0.9}}
"""
ROWS = b"".join(
    b"""  - id: o%d
    category: x%d
    kind: %s
    value: %d
    levers: [{when: 'intent == "%s"', factor: 3}, {when: age > 50.0, factor: 0.5}]
    risk: {company: 1, rules: [{when: age > 80.0, customer: 5}]}
    treatments: [{text: t}]
"""
    % (at, at % 3, b"sale" if at % 2 else b"service", 5 + at, b"abc"[at % 3 : at % 3 + 1])
    for at in range(9)
)


@pytest.mark.parametrize(("method", "floor"), [("thompson", 0.1), ("inverse_gap", 0.1), ("greedy", 0)])
def test_a_decision_is_made_again_from_its_record(method: str, floor: float) -> None:
    """Scores, slates and propensities to the bit, from record and configuration, without the policy."""
    text = EVERYTHING % (ROWS, method.encode(), str(floor).encode() if floor else b"0")
    catalogue = Catalogue.compile(parse(text), version_of(text), text)
    policy, asked, kept = prior_policy(catalogue), 0, []
    intent, age = catalogue.fact_columns["intent"], catalogue.fact_columns["age"]
    for number in range(120):
        facts = [] if number % 3 else [(intent, float(number % 2))]
        facts += [] if number % 4 == 1 else [(age, float(number % 100))]
        ask = Ask(f"p{number}", 0, 0, tuple(facts), b"{}", 1 + number % 4, START_MS, "en", "", 0)
        [draft] = decide(catalogue, policy, [ask], [(None, None)])
        assert isinstance(draft, Draft)
        record = DecisionRecord.unpack(draft.record)
        assert record.basis is not None
        asked += bool(record.basis.values)
        kept.append(record)
    assert made_again(catalogue, kept) == [[]] * len(kept)
    assert asked


async def test_of_whom_nothing_can_be_read_nothing_is_sold_from_the_fallback_list() -> None:
    text = EVERYTHING % (ROWS, b"greedy", b"0") + b"fallback: [o1, o2, hush]\n"
    engine = SmallEngine(text)

    async def away(customers: object) -> None:
        raise StoreError("away")

    engine.store.read = away  # type: ignore[method-assign, assignment]
    answer = await engine.decide("ann", "web")
    assert answer.degraded and [offer.offer_id for offer in answer.offers] == ["o2", "hush"]


async def test_answers_come_again_as_they_were() -> None:
    """The answer to a request that is sent twice is read from the record."""
    text = EVERYTHING % (ROWS, b"greedy", b"0")
    engine = SmallEngine(text)
    for facts in ({"age": 10.0}, {}, {"age": 30.0, "intent": "a"}):
        customer = f"p{len(facts)}{facts.get('age')}"
        first = await engine.decide(customer, "web", context=facts, request_id="once")
        again = await engine.decide(customer, "web", context=facts, request_id="once")
        assert [offer.offer_id for offer in first.offers] == [offer.offer_id for offer in again.offers]
        assert first.decision_id == again.decision_id and first.nothing_reason == again.nothing_reason
