"""`opportune evaluate` on what a real engine decided: what is recomputed is what the engine would have done."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from engine.catalogue import Catalogue
from engine.cli import main
from engine.config import parse, version_of
from engine.errors import InvalidArgument
from engine.evaluate import enginelog
from engine.evaluate.judging import judge
from engine.evaluate.log import NOTHING
from engine.evaluate.targets import target_of
from engine.history import decisions
from engine.limits import PARTITIONS
from engine.store import RedisStore
from engine.valuecode import decoded
from models import Policy
from tests.small_engine import CONFIG, DAY_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server

RATES = {"card": 0.3, "loan": 0.05, "helpline": 0.6}
"""Of those who accept, whoever they are."""
SHOP = CONFIG.replace(b"fallback: [card]", b"fallback: [card]\nexploration: {floor: 0.05}")


async def a_past(engine: SmallEngine, customers: int, seed: int = 1) -> None:
    """Customers who ask once each, answer at once or never, and a month in which all windows close."""
    dice = np.random.default_rng(seed)
    for number in range(customers):
        customer = f"c{number}"
        if number % 3 == 0:
            await engine.publish("purchase", customer, amount=200.0)
            await engine.fold()
        channel = "web" if number % 4 == 0 else "branch"
        answer = await engine.decide(customer, channel, limit=1, context={"minutes": number % 60})
        for offer in answer.offers:
            if dice.random() < RATES[offer.offer_id]:
                await engine.report(answer.decision_id, offer.offer_id, "accepted")
        engine.now_ms += 60_000
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")


async def log_of(engine: SmallEngine, target: Catalogue | None = None, reward: str = "target") -> enginelog.EngineLog:
    written = decisions.Written()
    batches = decisions.decided(engine.store, engine.catalogue, None, None, written)
    return await enginelog.read(batches, written, engine.catalogue, target, reward, "the log")


@pytest.fixture
async def engine() -> AsyncIterator[SmallEngine]:
    engine = SmallEngine(SHOP)
    await engine.store.save_config(engine.catalogue.version, SHOP)
    await a_past(engine, 600)
    yield engine


def prior(engine: SmallEngine, log: enginelog.EngineLog) -> list[Policy]:
    """The beliefs that this engine decided with: it never learnt."""
    served = engine.service.decider.policy
    columns = [served.offers.index(name) if name != NOTHING else 0 for name in log.names]
    pairs = np.ascontiguousarray(served.cov_weights[:, columns])
    means = np.ascontiguousarray(served.mean_weights[:, columns])
    return [Policy(tuple(log.names), 1, 0, means, pairs, np.zeros(len(columns), np.float32))] * 5


async def test_with_the_beliefs_of_then_the_recomputed_propensity_is_the_logged_one(engine: SmallEngine) -> None:
    """Rules, channels, silence, exploration and floor: all of the decision again, from the record alone."""
    log = await log_of(engine)
    log.__dict__["beliefs"] = prior(engine, log)
    rows = np.arange(len(log))
    shares = log.configured(engine.catalogue, rows, 0)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(log)))
    assert shares[rows, log.actions] == pytest.approx(log.propensities, rel=1e-5)
    assert ((shares > 0) <= log.possible(rows)).all()
    assert {log.names[action] for action in log.actions} == {"card", "loan", "helpline", NOTHING}


GOVERNED = [
    b"{strength: 0.3}",
    b"{method: epsilon_greedy, epsilon: 0.2, strength: 0.5, budget: {share: 0.5}}",
    b"{method: inverse_gap, strength: 0.5, floor: 0.02}",
    b"{method: inverse_gap, budget: {share: 0.8}}",
    b"{method: greedy}",
    b"{floor: 0.05, budget: {share: 0.5}}",
    b"{floor: 0.05, budget: {share: 0}}",
    b"{floor: 0.05, never: ['minutes > 30.0']}",
    b"{floor: 0.05, never: ['minutes > 40.0'], budget: {share: 0.8, channels: {web: 0.25}, offers: {card: 0.3}}}",
]


@pytest.mark.parametrize("exploration", GOVERNED)
async def test_governed_exploration_is_recomputed_too(exploration: bytes) -> None:
    text = SHOP.replace(b"{floor: 0.05}", exploration).replace(b"value: 30\n", b"value: 30\n    explore: false\n")
    engine = SmallEngine(text)
    await engine.store.save_config(engine.catalogue.version, text)
    await a_past(engine, 300)
    log = await log_of(engine)
    log.__dict__["beliefs"] = prior(engine, log)
    rows = np.arange(len(log))
    shares = log.configured(engine.catalogue, rows, 0)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(log)))
    assert shares[rows, log.actions] == pytest.approx(log.propensities, rel=1e-5)
    greedy = log.configured(engine.catalogue, rows, 0, greedy=True)
    assert (shares == greedy).all() == (exploration in (b"{method: greedy}", b"{floor: 0.05, budget: {share: 0}}"))


async def test_what_is_never_explored_supports_nothing_else() -> None:
    """On some of the customers the engine does what it holds for best, always: of anything else they say nothing."""
    governed = b"{method: epsilon_greedy, epsilon: 1, never: ['minutes > 50.0']}"
    text = SHOP.replace(b"{floor: 0.05}", governed)
    engine = SmallEngine(text)
    await engine.store.save_config(engine.catalogue.version, text)
    await a_past(engine, 600)
    log = await log_of(engine)
    certain = (log.propensities == 1.0).mean()
    assert 0.1 < certain < 0.2
    best = log.names[np.bincount(log.actions[log.propensities == 1.0]).argmax()]
    other = "nothing" if best == "card" else "constant:card"
    assert judge(log, target_of(other, log, None)).support.unseen_share > 0.1
    refused = judge(log, target_of("uniform", log, None))
    assert refused.answer is None
    assert any("never took, or could not take" in refusal.reason for refusal in refused.refusals)


async def test_a_budget_a_customer_is_refused(engine: SmallEngine) -> None:
    """What it leaves open depends on what the policy itself would have shown before."""
    text = SHOP.replace(b"{floor: 0.05}", b"{budget: {customer: {answers: 2, within: 7d}}}")
    target = Catalogue.compile(parse(text), version_of(text), text)
    log = await log_of(engine, target)
    with pytest.raises(InvalidArgument, match=r"exploration\.budget\.customer cannot be recomputed"):
        log.configured(target, np.arange(5), 0)
    assert log.configured(target, np.arange(5), 0, greedy=True).sum() == pytest.approx(5.0)


async def test_the_log_has_the_first_offer_what_came_of_it_and_what_else_was_possible(engine: SmallEngine) -> None:
    log = await log_of(engine)
    assert len(log) == 600, "but for the decision whose window is open"
    assert any("may still be open" in remark for remark in log.remarks)
    possible = {name: log.possible(np.arange(600))[:, at] for at, name in enumerate(log.names)}
    numbers = np.array([int(customer[1:]) for customer in log.people])
    assert possible[NOTHING].all() and possible["card"].all()
    assert (possible["helpline"] == (numbers % 4 != 0)).all(), "in the branch only"
    assert (possible["loan"] == (numbers % 3 == 0)).all(), "for those who spent"
    helped = log.rewards[log.actions == log.names.index("helpline")]
    assert helped.mean() == pytest.approx(RATES["helpline"], abs=0.15)
    assert (log.rewards[log.actions == log.names.index(NOTHING)] == 0).all()


async def test_the_value_of_one_offer_is_found_where_it_was_possible(engine: SmallEngine) -> None:
    log = await log_of(engine)
    found = judge(log, target_of("constant:card", log, None))
    assert found.answer is not None, found.refusals
    assert found.answer.low < RATES["card"] < found.answer.high
    found = judge(log, target_of("constant:helpline", log, None))
    assert found.support.rows == 450, "web customers could not be offered it"
    assert found.answer is not None, found.refusals
    assert found.answer.low < RATES["helpline"] < found.answer.high
    assert "effective_rewards" in {refusal.code for refusal in judge(log, target_of("nothing", log, None)).refusals}


async def returning(text: bytes, customers: int, days: int) -> SmallEngine:
    """Half accept the card with .6, half with .02; a yes is told, and of who keeps silent nothing changes."""
    engine, dice = SmallEngine(text), np.random.default_rng(5)
    await engine.store.save_config(engine.catalogue.version, text)
    for _ in range(days):
        for number in range(customers):
            answer = await engine.decide(f"c{number}", "web", limit=1)
            likes = 0.6 if number % 2 else 0.02
            if answer.offers and dice.random() < likes:
                await engine.report(answer.decision_id, "card", "accepted")
        engine.now_ms += DAY_MS
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    return engine


async def test_who_comes_back_is_shown_what_he_ignored_and_that_is_no_draw() -> None:
    """Repetitions are of who said no: weighed like draws they would hide half of what the card earns."""
    engine = await returning(SHOP.replace(b"{floor: 0.05}", b"{method: epsilon_greedy, epsilon: 1}"), 400, 6)
    log = await log_of(engine)
    found = judge(log, target_of("constant:card", log, None))
    assert found.answer is not None, found.refusals
    truth = np.mean([0.6 if int(customer[1:]) % 2 else 0.02 for customer in log.people])
    assert found.answer.low < truth < found.answer.high
    said = re.search(r"left out ([\d,]+) decisions that repeated a draw", "".join(log.remarks))
    assert said is not None
    assert len(log) + int(said[1].replace(",", "")) == 400 * 6
    batches = decisions.decided(engine.store, engine.catalogue, None, None, decisions.Written())
    every = [one async for _, batch in batches for one in batch]
    rows = [(one.record.slate[0].propensity, one.first["target"]) for one in every if one.record.slate]
    naive = sum((target or 0.0) / propensity for propensity, target in rows) / len(every)
    assert naive < 0.25, "which is far from the 0.31 of everybody"


async def test_draws_before_the_span_that_is_evaluated_count_as_well() -> None:
    engine = await returning(SHOP.replace(b"{floor: 0.05}", b"{method: epsilon_greedy, epsilon: 1}"), 100, 2)
    from_ms = engine.now_ms - 31 * DAY_MS
    batches = decisions.decided(engine.store, engine.catalogue, from_ms, None, decisions.Written())
    every = [one async for _, batch in batches for one in batch if one.record.customer != "the-end"]
    batches = decisions.decided(engine.store, engine.catalogue, None, None, decisions.Written())
    accepted = {
        one.record.customer
        async for _, batch in batches
        for one in batch
        if one.first.get("target") and one.record.time_ms < from_ms
    }
    assert len(every) == 100 and accepted
    assert {one.record.customer for one in every if one.fresh_draw} == accepted


async def test_logged_is_the_mean_and_uniform_is_over_what_was_possible(engine: SmallEngine) -> None:
    log = await log_of(engine)
    found = judge(log, target_of("logged", log, None))
    assert [estimate.value for estimate in found.estimates] == pytest.approx([log.rewards.mean()] * 2)
    uniform = judge(log, target_of("uniform", log, None))
    possible = log.possible(np.arange(len(log)))
    rates = np.array([RATES.get(name, 0.0) for name in log.names])
    truth = float(((possible * rates).sum(axis=1) / possible.sum(axis=1)).mean())
    assert uniform.answer is not None, uniform.refusals
    assert uniform.answer.low < truth < uniform.answer.high
    assert uniform.support.weight_mean == pytest.approx(1.0, abs=0.15)


async def test_a_configuration_is_evaluated_with_its_values_and_rules(engine: SmallEngine) -> None:
    """Were the helpline worth nothing and the loan barred, the card would be what is offered."""
    text = SHOP.replace(b"value: 30\n", b"value: 0\n").replace(b"value: 100\n", b"value: 0\n")
    text = text.replace(b"exploration: {floor: 0.05}", b"exploration: {method: greedy}")
    other = Catalogue.compile(parse(text), version_of(text), text)
    log = await log_of(engine, other)
    shares = log.configured(other, np.arange(len(log)), 0)
    assert (shares[:, log.names.index("card")] == 1.0).all()
    found = judge(log, target_of("other.yaml", log, other))
    assert found.answer is not None, found.refusals
    assert found.answer.low < RATES["card"] < found.answer.high


async def test_rewards_below_nothing_and_above_the_value_are_learnt_from() -> None:
    """A delivery may cost more than it brings, or bring more than declared: shares of -0.5 to 2 of the value."""
    text = SHOP.replace(b"  - id: card\n", b"  - id: card\n    rewards: [-15, 60]\n")
    engine, dice = SmallEngine(text), np.random.default_rng(2)
    await engine.store.save_config(engine.catalogue.version, text)
    for number in range(500):
        answer = await engine.decide(f"c{number}", "web", limit=1)
        if answer.offers and dice.random() < 0.5:
            await engine.report(answer.decision_id, "card", "accepted", value=float(dice.choice([-15.0, 60.0])))
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    log = await log_of(engine, reward="reward")
    card = log.names.index("card")
    assert set(log.rewards[log.actions == card].tolist()) == {-15.0, 0.0, 60.0}
    shares = log.configured(engine.catalogue, np.arange(len(log)), 0, greedy=True)
    assert shares[:, card].mean() == 1.0, "which brings eleven"
    assert all(np.isfinite(fitted.score(log.x[:5])).all() for fitted in log.beliefs)


async def test_a_configuration_that_drops_a_rule_offers_what_the_log_could_not(engine: SmallEngine) -> None:
    """The loan for everybody: two thirds of such choices have no propensity in the log, and that is noticed."""
    text = SHOP.replace(b'eligibility: ["complaints_90d == 0.0", "spent_30d > 100.0"]', b"lever: 1000")
    text = text.replace(b"exploration: {floor: 0.05}", b"exploration: {method: greedy}")
    other = Catalogue.compile(parse(text), version_of(text), text)
    log = await log_of(engine, other)
    found = judge(log, target_of("other.yaml", log, other))
    assert found.answer is None
    assert found.support.unseen_share == pytest.approx(2 / 3, abs=0.01)
    assert found.support.weight_mean < 0.7
    assert {"unseen", "weight_mean"} <= {refusal.code for refusal in found.refusals}


async def test_a_new_rule_is_evaluated_on_what_each_decision_saw(engine: SmallEngine) -> None:
    """The loan for whom spends more than 50: as many more as there are such people."""
    text = SHOP.replace(b"spent_30d > 100.0", b"spent_30d > 50.0")
    other = Catalogue.compile(parse(text), version_of(text), text)
    log = await log_of(engine, other)
    every, loan = np.arange(len(log)), log.names.index("loan")
    before, after = log.possible(every)[:, loan], log.configured(other, every, 0)[:, loan] > 0
    assert (after >= before).all()
    for at, basis in enumerate(log.bases):
        assert basis is not None
        [[spent, *_]] = decoded([basis.seen], len(other.columns))
        assert after[at] == (spent > 50.0 and before[at] >= (spent > 100.0))


async def test_new_rules_cannot_be_told_of_records_of_an_earlier_release(engine: SmallEngine) -> None:
    text = SHOP.replace(b"spent_30d > 100.0", b"spent_30d > 50.0")
    other = Catalogue.compile(parse(text), version_of(text), text)
    log = await log_of(engine, other)
    log.bases[3] = None
    with pytest.raises(InvalidArgument, match=r"not those of the log, and there are records of an earlier"):
        judge(log, target_of("other.yaml", log, other))


async def test_other_inputs_of_the_model_are_refused(engine: SmallEngine) -> None:
    other = catalogue_of(SHOP.replace(b"range: [0, 60]}", b"range: [0, 90]}"))
    log = await log_of(engine, other)
    with pytest.raises(InvalidArgument, match="inputs of the model"):
        judge(log, target_of("other.yaml", log, other))


async def test_a_new_offer_has_never_been_taken(engine: SmallEngine) -> None:
    text = SHOP.replace(b"fallback:", b"  - {id: fund, value: 900, treatments: [{text: Save more}]}\nfallback:", 1)
    other = Catalogue.compile(parse(text), version_of(text), text)
    log = await log_of(engine, other)
    found = judge(log, target_of("other.yaml", log, other))
    assert "unseen" in {refusal.code for refusal in found.refusals}


async def test_an_empty_log_and_an_unknown_offer_are_told() -> None:
    engine = SmallEngine(SHOP)
    with pytest.raises(InvalidArgument, match="the log: holds no decision that can be evaluated"):
        await log_of(engine)
    await a_past(engine, 3)
    log = await log_of(engine)
    with pytest.raises(InvalidArgument, match="'car' is not in the log, expected one of: card, helpline, loan"):
        target_of("constant:car", log, None)


@pytest.mark.parametrize("customers", [1, 2, 7])
async def test_a_few_decisions_are_refused_and_nothing_breaks(customers: int) -> None:
    """Folds without customers, or without offers, learn and judge nothing."""
    engine = SmallEngine(SHOP)
    await a_past(engine, customers)
    log = await log_of(engine, engine.catalogue)
    for policy in ("logged", "uniform", "nothing"):
        assert judge(log, target_of(policy, log, None)).answer is None
    if (log.actions != log.names.index(NOTHING)).any():
        for configuration in (None, engine.catalogue):
            assert judge(log, target_of("greedy", log, configuration)).answer is None


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    server = Server(tmp_path_factory.mktemp("evaluate"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def past(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration; its engine has left a log in the store."""
    import asyncio

    folder = tmp_path_factory.mktemp("past")
    (folder / "shop.yaml").write_bytes(SHOP)

    async def fill() -> None:
        store = await RedisStore.open(server.url, PARTITIONS)
        await store.save_config(catalogue_of(SHOP).version, SHOP)
        await a_past(SmallEngine(SHOP, store), 300)
        await store.close()

    asyncio.run(fill())
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, words)], catch_exceptions=False)


def test_the_command_answers_and_writes_the_same_as_json(server: Server, past: Path) -> None:
    words = ["--log", server.url, "--config", past / "shop.yaml", "--reward", "target"]
    result = run(*words, "--policy", "constant:card", "--json", past / "card.json")
    assert result.exit_code == 0, result.output
    assert f"constant:card on {server.url}: answered" in result.output
    found = json.loads((past / "card.json").read_text())
    assert found["verdict"] == "answered"
    assert found["answer"]["name"] == "DR"
    assert found["answer"]["low"] < RATES["card"] < found["answer"]["high"]
    assert next(each for each in found["estimates"] if each["name"] == "DM")["low"] is None
    for policy in ("logged", "uniform", "greedy", past / "shop.yaml"):
        result = run(*words, "--policy", policy)
        assert result.exit_code in (0, 3), result.output


def test_a_refusal_has_its_exit_code_its_reason_and_no_estimates(server: Server, past: Path) -> None:
    words = ["--log", server.url, "--config", past / "shop.yaml", "--json", past / "no.json"]
    result = run(*words, "--policy", "nothing")
    assert result.exit_code == 3, result.output
    assert "REFUSED" in result.output
    assert "DR" not in result.output.replace("DROP", "")
    found = json.loads((past / "no.json").read_text())
    assert (found["verdict"], found["answer"], found["estimates"]) == ("refused", None, [])
    assert found["refusals"][0]["reason"]


def test_a_dataset_of_the_same_log_says_the_same(server: Server, past: Path) -> None:
    """Of the policy that does not need to know what else was possible."""
    out = past / "rows.parquet"
    common = ["--config", str(past / "shop.yaml")]
    made = CliRunner().invoke(main, ["dataset", *common, "--redis", server.url, "--out", str(out)])
    assert made.exit_code == 0, made.output
    figures = []
    for words in (["--log", server.url, *common], ["--log", out]):
        result = run(*words, "--policy", "constant:card", "--reward", "target", "--json", past / "each.json")
        assert result.exit_code == 0, result.output
        figures.append(json.loads((past / "each.json").read_text()))
    assert figures[0]["support"]["rows"] == figures[1]["support"]["rows"] == 300
    for mine, theirs in zip(figures[0]["estimates"], figures[1]["estimates"], strict=True):
        # The prior of the model is the configuration's in one and a fixed one in the other.
        if mine["name"] in ("IPS", "SNIPS"):
            assert theirs["value"] == pytest.approx(mine["value"])
            assert theirs["high"] == pytest.approx(mine["high"])


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--log", "redis://127.0.0.1:1", "--policy", "logged"], 2, "needs --config"),
        (["--log", "file://x", "--policy", "logged"], 2, "expected one that begins with unix://"),
        (["--log", ".", "--policy", "logged", "--config", "x", "--reward", "spend"], 2, "expected reward or target"),
        (["--log", ".", "--policy", "logged", "--action", "a"], 2, "expected no --action"),
        (["--log", "nowhere.csv", "--policy", "logged", "--config", "x.yaml"], 2, "expected no --config"),
        (["--log", "nowhere.csv", "--policy", "logged"], 1, "neither a data folder, a store nor a file"),
        (["--log", "nowhere.csv", "--policy", "best"], 1, "neither a file nor one of logged"),
        (["--log", "nowhere.csv", "--policy", "logged", "--action", "a"], 2, "all of them"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], code: int, expected: str) -> None:
    result = run(*words)
    assert result.exit_code == code, result.output
    assert expected in " ".join(result.output.split())
