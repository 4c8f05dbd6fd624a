"""`opportune evaluate --slates`: whole answers of a real engine, recomputed place by place, beside what is known."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.errors import InvalidArgument
from engine.evaluate import slates
from engine.evaluate.enginelog import EngineLog
from engine.evaluate.log import NOTHING
from engine.evaluate.slates import judge_slates
from engine.evaluate.targets import target_of
from engine.limits import PARTITIONS
from engine.store import RedisStore
from models.slatevalue import SlateSample
from tests.evaluate.test_evaluation_of_an_engine import RATES, SHOP, log_of, prior
from tests.small_engine import DAY_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server, shared_server

__all__ = ["shared_server"]

ONCE_TAKEN = 0.5
"""What an acceptance leaves of the rates of the places behind it."""


async def a_past(engine: SmallEngine, customers: int, seed: int = 1) -> None:
    """Customers who are answered with up to three offers each, and a month in which all windows close."""
    dice = np.random.default_rng(seed)
    for number in range(customers):
        customer = f"c{number}"
        if number % 2 == 0:
            await engine.publish("purchase", customer, amount=200.0)
            await engine.fold()
        answer = await engine.decide(customer, "web" if number % 4 == 0 else "branch", limit=1 + number % 3)
        left = 1.0
        for offer in answer.offers:
            if dice.random() < RATES[offer.offer_id] * left:
                await engine.report(answer.decision_id, offer.offer_id, "accepted")
                left = ONCE_TAKEN
        engine.now_ms += 60_000
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")


@pytest.fixture
async def log() -> EngineLog:
    engine = SmallEngine(SHOP)
    await engine.store.save_config(engine.catalogue.version, SHOP)
    await a_past(engine, 900)
    log = await log_of(engine)
    log.__dict__["engine"] = engine
    return log


def uniform_truth(log: EngineLog) -> float:
    """What drawing evenly among what is left, silence too, earns with these customers."""

    def worth(left: frozenset[str], places: int, rest: float) -> float:
        if not places:
            return 0.0
        total = 0.0
        for offer in left:
            rate, others = RATES[offer] * rest, left - {offer}
            taken, not_taken = worth(others, places - 1, ONCE_TAKEN), worth(others, places - 1, rest)
            total += rate * (1.0 + taken) + (1.0 - rate) * not_taken
        return total / (len(left) + 1)

    possible = log.possible(np.arange(len(log)))
    sums = []
    for row, customer in enumerate(log.people):
        offers = frozenset(name for at, name in enumerate(log.names) if possible[row, at] and name != NOTHING)
        # Once one was accepted, all behind it are worth less: the rates of a state do not recover.
        sums.append(worth(offers, 1 + int(customer[1:]) % 3, 1.0))
    return float(np.mean(sums))


async def test_with_the_beliefs_of_then_every_place_has_the_logged_propensity(
    log: EngineLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: SmallEngine = log.__dict__["engine"]
    log.__dict__["beliefs"] = prior(engine, log)
    seen: list[SlateSample] = []
    estimate = slates.evaluate_slates
    monkeypatch.setattr(slates, "evaluate_slates", lambda sample: seen.append(sample) or estimate(sample))
    found = judge_slates(log, target_of("greedy", log, engine.catalogue), engine.catalogue)
    [sample] = seen
    assert sample.target[:, 0] == pytest.approx(sample.logged[:, 0], rel=1e-5)
    # The engine integrates the races of all places over one grid: what is left of them differs in the third digit.
    assert sample.target == pytest.approx(sample.logged, rel=0.02)
    assert (sample.logged[:, 1:] < 1.0).sum() > 500, "later places were drawn, too"
    assert found.support.unseen_share == 0.0
    for one in found.estimates:
        assert one.value == pytest.approx(found.logged.value, rel=0.01), one.name


async def test_what_is_logged_is_the_sum_of_all_places(log: EngineLog) -> None:
    found = judge_slates(log, target_of("logged", log, None), None)
    total = log.rewards + np.array([sum(place[2] for place in later) for later in log.later])
    assert found.logged.value == pytest.approx(total.mean()) and total.mean() > 1.2 * log.rewards.mean()
    assert [one.value for one in found.estimates] == pytest.approx([total.mean()] * 2)


async def test_the_value_of_drawing_evenly_is_the_one_that_is_known(log: EngineLog) -> None:
    found = judge_slates(log, target_of("uniform", log, None), None)
    truth = uniform_truth(log)
    assert found.answer is not None, found.refusals
    assert found.answer.name == "DR" and found.answer.low < truth < found.answer.high
    named = {one.name: one for one in found.estimates}
    assert named["cascade"].low < truth < named["cascade"].high
    assert named["DR"].high - named["DR"].low < named["IPS"].high - named["IPS"].low


async def test_greedy_and_a_configuration_are_evaluated_and_nothing_earns_nothing(log: EngineLog) -> None:
    engine: SmallEngine = log.__dict__["engine"]
    for policy, configuration in (("greedy", None), ("greedy", engine.catalogue)):
        found = judge_slates(log, target_of(policy, log, None), configuration)
        assert found.estimates[-1].name == "DR" and np.isfinite(found.estimates[-1].value)
    nothing = judge_slates(log, target_of("nothing", log, None), None)
    assert nothing.estimates[0].value == 0.0


async def test_what_cannot_be_said_of_whole_answers_is_refused(log: EngineLog) -> None:
    with pytest.raises(InvalidArgument, match="constant:card: says what stands first, not what comes after"):
        judge_slates(log, target_of("constant:card", log, None), None)
    shaped = catalogue_of(SHOP + b"slate: {most_per: {kind: 1}}\n")
    with pytest.raises(InvalidArgument, match="what may stand beside what"):
        judge_slates(log, target_of("greedy", log, None), shaped)
    halved = catalogue_of(SHOP.replace(b"exploration: {", b"exploration: {budget: {share: 0.5}, "))
    assert halved.explorer.gates is not None and not halved.explorer.open
    with pytest.raises(InvalidArgument, match="between 0 and 1 cannot be recomputed here for the places behind"):
        judge_slates(log, target_of("shop.yaml", log, halved), halved)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, words)], catch_exceptions=False)


def test_the_command_says_that_it_is_about_whole_answers(shared_server: Server, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(SHOP)

    async def fill() -> None:
        store = await RedisStore.open(shared_server.url, PARTITIONS)
        await store.save_config(catalogue_of(SHOP).version, SHOP)
        await a_past(SmallEngine(SHOP, store), 250)
        await store.close()

    asyncio.run(fill())
    words = ["--log", shared_server.url, "--config", tmp_path / "shop.yaml", "--slates", "--reward", "target"]
    result = run(*words, "--policy", "uniform", "--json", tmp_path / "all.json")
    assert result.exit_code in (0, 3), result.output
    assert "whole answers" in result.output
    assert json.loads((tmp_path / "all.json").read_text())["position"] == "all"
    result = run(*words, "--policy", "constant:card")
    assert result.exit_code == 1 and "leave out --slates" in result.output
    result = run("--log", tmp_path / "rows.csv", "--policy", "logged", "--slates")
    assert result.exit_code == 2 and "expected no --slates" in result.output
