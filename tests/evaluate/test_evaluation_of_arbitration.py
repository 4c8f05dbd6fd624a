"""Levers, guard, questions and silence in evaluation and challengers: what is recomputed is what the engine did."""

import numpy as np
import pytest

from engine.challengers import Challengers
from engine.record import DecisionRecord
from tests.evaluate.test_evaluation_of_an_engine import a_past, log_of, prior
from tests.small_engine import CONFIG, SmallEngine

WEIGHED = (
    CONFIG.replace(b"    value: 40\n", b"    value: 40\n    levers: [{when: minutes > 30.0, factor: 3}]\n"
                   b"    risk: {company: 1, rules: [{when: minutes > 45.0, customer: 9}]}\n")
    .replace(b"    kind: service\n", b"    kind: service\n    category: care\n")
    .replace(b"fallback: [card]", b"""  - {id: ask, kind: question, category: care, value: 0, contact_cost: 0.1,
     treatments: [{text: What?}], asks: {fact: intent, answers: {pay: 0.4, borrow: 0.4}}}
  - {id: hush, kind: silence, category: care, value: 0.5, treatments: [{text: Thanks}]}
weights: {rules: [{when: 'intent == "borrow"', factor: 6, categories: [credit]}]}
guard: [{name: short, when: minutes < 10.0}]
slate: {most_per: {category: 1}}
exploration: {floor: 0.05}
challengers: [{name: other, model: {ours: {prior_strength: 20}}}]
fallback: [card]""")
)  # fmt: skip


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> SmallEngine:
    monkeypatch.setitem(a_past.__globals__["RATES"], "ask", 0.5)
    monkeypatch.setitem(a_past.__globals__["RATES"], "hush", 0.0)
    engine = SmallEngine(WEIGHED)
    await engine.store.save_config(engine.catalogue.version, WEIGHED)
    await a_past(engine, 300)
    return engine


async def test_with_the_beliefs_of_then_the_recomputed_propensity_is_the_logged_one(engine: SmallEngine) -> None:
    log = await log_of(engine)
    log.__dict__["beliefs"] = prior(engine, log)
    rows = np.arange(len(log))
    shares = log.configured(engine.catalogue, rows, 0)
    assert shares[rows, log.actions] == pytest.approx(log.propensities, rel=1e-5)
    possible = log.possible(rows)
    assert ((shares > 0) <= possible).all() and possible[rows, log.actions].all()
    taken = {log.names[action] for action in log.actions}
    assert {"card", "ask", "hush", "loan"} <= taken
    short = np.array([int(customer[1:]) % 60 < 10 for customer in log.people])
    assert not possible[short][:, [log.names.index("card"), log.names.index("loan")]].any()
    assert possible[~short][:, log.names.index("card")].all()


async def test_challengers_score_as_the_engine_did(engine: SmallEngine) -> None:
    challengers = Challengers(engine.catalogue, lambda: 0.0)
    checked = 0
    for partition in range(4):
        for data in engine.store._decisions[partition].data.values():  # type: ignore[attr-defined]
            if data[:1] != b"\1":
                continue
            record = DecisionRecord.unpack(data)
            mean = engine.service.decider.policy.score(np.frombuffer(record.x, np.int8)[None])[0]
            may = challengers._possible(record, mean)
            scores = challengers._scores(record, mean[0])
            for choice in record.slate:
                at = engine.catalogue.index_of_key[choice.key]
                assert may[at] and scores[at] == pytest.approx(choice.score, rel=1e-5)
                checked += 1
    assert checked > 200


async def test_who_reports_on_silence_learns_that_nothing_is_open(engine: SmallEngine) -> None:
    answer = await engine.decide("zoe", "web", limit=1, context={"minutes": 5.0, "intent": "pay"})
    for seed in range(60):
        if [offer.offer_id for offer in answer.offers] == ["hush"]:
            break
        answer = await engine.decide(f"zoe-{seed}", "web", limit=1, context={"minutes": 5.0, "intent": "pay"})
    assert [offer.offer_id for offer in answer.offers] == ["hush"]
    with pytest.raises(Exception, match="hush"):
        await engine.report(answer.decision_id, "hush", "accepted")
