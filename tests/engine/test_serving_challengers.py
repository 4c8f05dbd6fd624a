"""A challenger that serves a share: the same people everywhere, exact propensities, measured on what it served."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from engine.again import made_again
from engine.challengers import Challengers
from engine.cli_challengers import _show_served
from engine.decide import decide
from engine.drafts import Ask, Draft
from engine.errors import ConfigError
from engine.learner import prior_policy
from engine.policyfacts import PolicyFacts
from engine.record import DecisionRecord
from engine.served import Served
from engine.sharing import fields_of
from engine.tally import BUCKETS, shortfall
from models import CheckpointError
from tests.small_engine import CONFIG, DAY_MS, START_MS, SmallEngine, catalogue_of

SURE = b"{name: sure, serves: 0.3, model: {ours: {prior_rate: 0.9, prior_strength: 1e6}}}"
"""Expects nearly everybody to accept, whatever they do."""
SHARED = CONFIG + b"challengers:\n  - " + SURE + b"\nexploration: {floor: 0.2}\n"
PEOPLE = [f"person-{n}" for n in range(4_000)]


def served(text: bytes, people: list[str] = PEOPLE, time_ms: int = START_MS) -> dict[str, str]:
    sharing = catalogue_of(text).sharing
    return {person: sharing.served_by(person, time_ms) for person in people}


def test_shares_are_as_declared_and_stay() -> None:
    two = SHARED.replace(b"challengers:\n", b"challengers:\n  - {name: calm, serves: 0.2, model: {ours: {}}}\n")
    found = served(two)
    counts = {name: list(found.values()).count(name) / len(PEOPLE) for name in ("", "calm", "sure")}
    assert counts == pytest.approx({"": 0.5, "calm": 0.2, "sure": 0.3}, abs=0.025)
    assert served(two, time_ms=START_MS + 300 * DAY_MS) == found, "whenever they come"
    before, after = served(SHARED), served(SHARED.replace(b"serves: 0.3", b"serves: 0.4"))
    assert all(after[person] == "sure" for person, name in before.items() if name), "who was served still is"
    assert set(served(CONFIG + b"challengers: [{name: calm, model: {ours: {}}}]\n").values()) == {""}


def test_who_is_in_an_experiment_stays_with_it() -> None:
    experiment = b"experiments: [{name: autumn, arms: [{name: sure, policy: greedy, share: 0.5}]}]\n"
    found = served(SHARED + experiment)
    catalogue = catalogue_of(SHARED + experiment)
    others = [person for person in PEOPLE if not catalogue.experiments.of(person, START_MS).plain]
    assert others and not any(found[person] for person in others)
    assert any(found.values())


async def learnt(engine: SmallEngine, customers: int = 240) -> None:
    dice = np.random.default_rng(1)
    for n in range(customers):
        answer = await engine.decide(f"c{n}", ("branch", "web")[n % 2], limit=1)
        for offer in answer.offers:
            await engine.report(answer.decision_id, offer.offer_id, "accepted" if dice.random() < 0.3 else "declined")
        engine.now_ms += 60_000
        if n % 40 == 39:
            await engine.learn()


async def test_its_estimates_decide_for_its_people_in_every_channel_and_for_nobody_else() -> None:
    engine = SmallEngine(SHARED)
    catalogue = engine.catalogue
    assert engine.service.decider.facts.rivals == {}, "until it was told, the champion serves"
    await learnt(engine)
    records: list[DecisionRecord] = []
    for n in range(60):
        for channel in ("branch", "web"):
            answer = await engine.decide(f"new-{n}", channel)
            record = (await engine.service.lookups.found(answer.decision_id))[-1]
            records.append(record)
            for choice in record.slate:
                theirs = catalogue.sharing.served_by(f"new-{n}", engine.now_ms) == "sure"
                assert (choice.mean > 0.8) == theirs, (n, channel, choice)
    means = [choice.mean > 0.8 for record in records for choice in record.slate]
    assert any(means) and not all(means)
    assert made_again(catalogue, records) == [[]] * len(records)
    # What its estimates came to is not counted as the champion's.
    learner = await engine.learning.learner()
    assert max(float(choice.mean) for record in records for choice in record.slate) > 0.8
    counted = sum(int(sums[0].sum()) for sums in learner.calibration._periods.values())
    assert 0 < counted < learner.lessons
    one = next(f"new-{n}" for n in range(60) if catalogue.sharing.served_by(f"new-{n}", START_MS))
    explained = await engine.explain((await engine.decide(one, "web")).decision_id)
    assert explained.caveat, "the champion's belief is not what decided"


def test_whom_it_serves_it_thinks_questions_through_for() -> None:
    question = b"""  - id: ask
    kind: question
    value: 0
    asks: {fact: intent, answers: {pay: 0.3, borrow: 0.4, leave: 0.3}}
    treatments: [{text: What brings you here?}]
fallback:"""
    rules = b'["complaints_90d == 0.0", "spent_30d > 100.0"]'
    assert rules in SHARED
    text = SHARED.replace(b"fallback:", question).replace(rules, b"[\"intent == 'borrow'\"]")
    catalogue = catalogue_of(text)
    person = next(name for name in PEOPLE if catalogue.sharing.served_by(name, START_MS))
    ask = Ask(person, 0, 0, (), b"{}", 3, START_MS, "en", "", 0)
    champion = prior_policy(catalogue)
    weights = champion.mean_weights.copy()
    weights[0] *= 9.0
    rival = replace(champion, version=7, mean_weights=weights)
    none = PolicyFacts.none(len(catalogue.ladder.offers))
    served_by_it, alone, without = (
        DecisionRecord.unpack(draft.record)
        for policy, facts in ((champion, replace(none, rivals={"sure": rival})), (rival, none), (champion, none))
        for draft in decide(catalogue, policy, [ask], [(None, None)], facts=facts)
        if isinstance(draft, Draft)
    )
    assert served_by_it.basis is not None and alone.basis is not None and without.basis is not None
    assert served_by_it.basis.values == alone.basis.values != without.basis.values
    assert served_by_it.slate == alone.slate


async def test_what_it_served_is_counted_told_and_kept() -> None:
    engine = SmallEngine(SHARED)
    await learnt(engine)
    engine.now_ms += 30 * DAY_MS
    for n in range(16):  # in every partition time goes on
        await engine.decide(f"the-end-{n}", "web")
    await engine.learn()
    [figures] = engine.learning._challengers.figures()["models"]
    own = figures["served"]
    theirs = sum(1 for n in range(240) if engine.catalogue.sharing.served_by(f"c{n}", START_MS))
    assert figures["serves"] == 0.3 and own["decisions"] == theirs > 40
    assert own["difference"] is None
    assert shortfall(figures | {"effective_rows": 1e6}).startswith("of those whom it serves")
    fields, _ = engine.learning._challengers.checkpoint()
    again = Challengers(engine.catalogue, lambda: 0.0)
    again.restore(fields)
    assert again.figures()["models"][0]["served"] == own
    other = Challengers(catalogue_of(SHARED.replace(b"0.3", b"0.2")), lambda: 0.0)
    other.restore(fields)
    assert other.figures()["models"][0]["served"]["decisions"] == 0, "of another configuration it says nothing"
    broken = Challengers(engine.catalogue, lambda: 0.0)
    broken.restore({name: data[:-3] for name, data in fields.items()})
    assert any("what challengers served" in line for _, line in broken.lines())
    assert orjson.dumps(own)


def test_the_difference_is_bounded_and_gates_the_promotion() -> None:
    """400 worlds in which the challenger earns as much as the champion, then one in which it earns more."""
    rng, held = np.random.default_rng(1), 0

    def world(rate: float, people: int = 900) -> dict[str, object]:
        sums = Served(("sure",))
        theirs = rng.random(people) < 0.3
        paid = rng.random(people) < np.where(theirs, rate, 0.3)
        buckets = rng.integers(0, BUCKETS, people)
        for bucket, own, reward in zip(buckets.tolist(), theirs.tolist(), paid.tolist(), strict=True):
            sums.count("sure" if own else "", bucket, 10.0 * reward)
        return sums.figures("sure")

    for _ in range(400):
        difference = world(0.3)["difference"]
        assert isinstance(difference, dict)
        held += difference["low"] <= 0.0 <= difference["high"]
    assert 0.925 <= held / 400 <= 0.975
    good = {"failed": "", "effective_rows": 1e3, "value": {"mean": 1.0, "low": 0.5, "high": 2.0}}
    assert shortfall(good) == ""
    assert shortfall(good | {"served": world(0.5)}) == ""
    assert "with those whom it serves the lower bound" in shortfall(good | {"served": world(0.3)})
    assert "too few" in shortfall(good | {"served": world(0.5, 60)})


def test_people_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    difference = {"mean": 0.5, "low": 0.1, "high": 0.9}
    figures = {"decisions": 1_200, "mean": 2.0, "champion": 1.5, "difference": difference}
    _show_served({"name": "sure", "serves": 0.3, "served": figures})
    told = "sure serves 30.0%: 1,200 decisions, 2 a decision, the champion meanwhile 1.5; difference "
    assert capsys.readouterr().out.strip() == told + "+0.5 (+0.1 to +0.9)"


def test_beliefs_on_the_board_are_read_back_and_damaged_ones_are_refused() -> None:
    catalogue = catalogue_of(SHARED)
    prior = prior_policy(catalogue)
    assert catalogue.sharing.renewed({}, prior, {"card": b"x", "@other/card": b"x"}) == {}
    with pytest.raises(CheckpointError):
        catalogue.sharing.renewed({}, prior, fields_of("sure", {"card": b"x"}))


@pytest.mark.parametrize(
    ("challenger", "told"),
    [
        ("{name: a, serves: 0.1, model: {river: river.dummy.PriorClassifier}}", "serves: exploring needs beliefs with"),
        ("{name: a, serves: 0.6, model: {ours: {}}}", "serves: expected less than or equal to 0.5, got 0.6"),
        ("{name: a, serves: -1, model: {ours: {}}}", "serves: expected greater than or equal to 0, got -1"),
        ("{name: a, serves: 0.3, model: {ours: {}}}, {name: b, serves: 0.3, model: {ours: {}}}", "0.6 of the"),
    ],
)
def test_a_mistake_is_told(challenger: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        catalogue_of(CONFIG + f"challengers: [{challenger}]\n".encode())
    assert told in str(refused.value)
