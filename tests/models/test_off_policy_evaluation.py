"""What another policy would have earned: estimators against worked examples, another implementation, and each other."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.crossfit import crossfit, folds_of
from models.evaluation import (
    EFFECTIVE_REWARDS_MIN,
    Estimate,
    Evaluation,
    Sample,
    SampleError,
    evaluate,
    interval,
)
from models.posterior import PosteriorOptions
from models.transform import STEPS


def by_name(found: Evaluation) -> dict[str, Estimate]:
    return {estimate.name: estimate for estimate in found.estimates}


def a_log(rows: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    """Two actions, logged at 0.3 and 0.7; the target takes them at 0.6 and 0.4."""
    dice = np.random.default_rng(seed)
    first = dice.random(rows) < 0.3
    return {
        "rewards": (dice.random(rows) < np.where(first, 0.5, 0.2)) * 1.0,
        "logged": np.where(first, 0.3, 0.7),
        "target": np.where(first, 0.6, 0.4),
        "people": np.arange(rows),
    }


# --- values ---------------------------------------------------------------------------------------------------------


def test_four_rows_worked_by_hand() -> None:
    """w = 2, 0.5, 2, 0; w·r = 2, 0, 2, 0. IPS 4/4; SNIPS 4/4.5; DM (.5+.5+1+1)/4; DR adds w(r-q) = 1, -.25, .5, 0."""
    found = by_name(
        evaluate(
            Sample(
                rewards=np.array([1.0, 0.0, 1.0, 1.0]),
                logged=np.array([0.5, 1.0, 0.25, 0.5]),
                target=np.array([1.0, 0.5, 0.5, 0.0]),
                model_logged=np.array([0.5, 0.5, 0.75, 0.5]),
                model_target=np.array([0.5, 0.5, 1.0, 1.0]),
            )
        )
    )
    assert found["IPS"].value == 1.0
    assert found["SNIPS"].value == pytest.approx(4 / 4.5)
    assert found["DM"].value == 0.75
    assert found["DR"].value == 0.75 + (1 - 0.25 + 0.5 + 0) / 4
    assert found["IPS"].lift == 0.25
    assert math.isnan(found["DM"].low), "its error is the model's, and no row shows that"


def a_worked_sample() -> dict[str, np.ndarray]:
    """Sixty decisions over three actions, written out in sines so that no dice are needed."""
    i = np.arange(60)
    done = (i * 7 + i // 5) % 3
    logged = np.stack([2 + np.sin(i), 2 + np.cos(2 * i), 2 + np.sin(3 * i + 1)], 1)
    target = np.stack([1 + np.cos(i) ** 2, 1 + np.sin(2 * i) ** 2, 0.5 + np.cos(3 * i) ** 2], 1)
    logged /= logged.sum(1, keepdims=True)
    target /= target.sum(1, keepdims=True)
    model = np.stack([0.3 + 0.2 * np.sin(i + 1), 0.5 + 0.3 * np.cos(i), 0.4 + 0.1 * np.sin(2 * i)], 1)
    return {
        "action": done,
        "reward": ((i * i + 3 * done) % 11) / 10,
        "pscore": logged[i, done],
        "action_dist": target,
        "model": model,
    }


def of(given: dict[str, np.ndarray]) -> Evaluation:
    row, done = np.arange(60), given["action"]
    return evaluate(
        Sample(
            given["reward"],
            given["pscore"],
            given["action_dist"][row, done],
            None,
            given["model"][row, done],
            (given["action_dist"] * given["model"]).sum(1),
        )
    )


OPEN_BANDIT_PIPELINE_0_4_1 = {
    "IPS": (0.5508616413836079, 0.45370086592624775, 0.6500574310551283),
    "SNIPS": (0.4735957828903457, None, None),  # its bootstrap takes the denominator as known
    "DM": (0.4027553031780645, None, None),
    "DR": (0.500744893770338, 0.4091398635242335, 0.5910332916771546),
}
"""Its estimators on `a_worked_sample`, and its intervals from 20,000 percentile bootstraps."""


def test_the_figures_are_those_of_open_bandit_pipeline() -> None:
    found = by_name(of(a_worked_sample()))
    for name, (value, low, high) in OPEN_BANDIT_PIPELINE_0_4_1.items():
        assert found[name].value == pytest.approx(value, rel=1e-13), name
        if low is not None and high is not None:
            assert found[name].low == pytest.approx(low, abs=0.01), name
            assert found[name].high == pytest.approx(high, abs=0.01), name


def test_open_bandit_pipeline_itself_agrees() -> None:
    """It pins torch, pandas and seaborn, so it is no dependency of the tests: this runs where somebody has it."""
    ope = pytest.importorskip("obp.ope", reason="Open Bandit Pipeline is not installed")
    given = a_worked_sample()
    asked = {
        "reward": given["reward"],
        "action": given["action"],
        "pscore": given["pscore"],
        "action_dist": given["action_dist"][:, :, None],
        "position": np.zeros(60, int),
        "estimated_rewards_by_reg_model": given["model"][:, :, None],
    }
    found = by_name(of(given))
    names = {
        "IPS": "InverseProbabilityWeighting",
        "SNIPS": "SelfNormalizedInverseProbabilityWeighting",
        "DM": "DirectMethod",
        "DR": "DoublyRobust",
    }
    for name, theirs in names.items():
        assert found[name].value == pytest.approx(getattr(ope, theirs)().estimate_policy_value(**asked), rel=1e-12)


def test_ips_and_dr_are_unbiased_over_every_log_there_can_be() -> None:
    """All 4³ logs of three decisions, each with its probability: the mean of the estimates is the target's value."""
    logged, target = (0.2, 0.8), (0.7, 0.3)
    rates = np.array([[0.5, 0.1], [0.9, 0.4], [0.3, 0.6]])  # of a yes, by decision and action
    model = np.array([[0.1, 0.3], [0.7, 0.2], [0.9, 0.9]])
    truth = float((rates @ np.array(target)).mean())
    means = {"IPS": 0.0, "DR": 0.0}
    for outcome in product(product((0, 1), (0, 1)), repeat=3):
        chance = 1.0
        for row, (action, paid) in enumerate(outcome):
            chance *= logged[action] * (rates[row, action] if paid else 1 - rates[row, action])
        done = np.array([action for action, _ in outcome])
        found = by_name(
            evaluate(
                Sample(
                    np.array([float(paid) for _, paid in outcome]),
                    np.array(logged)[done],
                    np.array(target)[done],
                    None,
                    model[np.arange(3), done],
                    model @ np.array(target),
                )
            )
        )
        for name in means:
            means[name] += chance * found[name].value
    assert means == pytest.approx({"IPS": truth, "DR": truth}, rel=1e-12)


# --- properties -----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 1), st.floats(-2, 2)), min_size=2, max_size=40),
)
@settings(max_examples=60)
def test_on_policy_every_estimator_is_the_mean(rows: list[tuple[float, float, float]]) -> None:
    rewards, logged, model = (np.array(column) for column in zip(*rows, strict=True))
    found = evaluate(Sample(rewards, logged, logged, None, model, model))
    mean = pytest.approx(float(rewards.mean()), abs=1e-9)
    assert (found.logged.value, *(by_name(found)[name].value for name in ("IPS", "SNIPS", "DR"))) == (mean,) * 4
    assert by_name(found)["IPS"].lift_low == pytest.approx(0.0, abs=1e-9)


@given(st.floats(-3, 3), st.integers(0, 50))
@settings(max_examples=40)
def test_a_shift_of_all_rewards_shifts_snips_and_dr_by_as_much(shift: float, seed: int) -> None:
    """If the model shifts, too. IPS shifts by the mean weight, which is 1 only on average."""
    log = a_log(seed=seed)
    model = np.full(400, 0.3)

    def at(by: float) -> dict[str, Estimate]:
        moved = Sample(log["rewards"] + by, log["logged"], log["target"], None, model + by, model + by)
        return by_name(evaluate(moved))

    before, after = at(0.0), at(shift)
    for name in ("SNIPS", "DR", "DM"):
        assert after[name].value == pytest.approx(before[name].value + shift, abs=1e-9)
    for name in ("SNIPS", "DR"):
        assert after[name].low == pytest.approx(before[name].low + shift, abs=1e-6)
    weight = float((log["target"] / log["logged"]).mean())
    assert after["IPS"].value == pytest.approx(before["IPS"].value + shift * weight, abs=1e-9)


def test_rewards_in_another_unit_give_the_same_in_that_unit() -> None:
    log = a_log()
    one = evaluate(Sample(log["rewards"], log["logged"], log["target"]))
    cents = evaluate(Sample(log["rewards"] * 100, log["logged"], log["target"]))
    for mine, theirs in zip(one.estimates, cents.estimates, strict=True):
        assert theirs.value == pytest.approx(100 * mine.value)
        assert (theirs.low, theirs.high) == pytest.approx((100 * mine.low, 100 * mine.high))


@pytest.mark.parametrize("times", [2, 5])
def test_rows_of_the_same_customers_again_tell_nothing_new(times: int) -> None:
    log = a_log()
    again = {name: np.tile(column, times) for name, column in log.items()}
    once, more = evaluate(Sample(**log)), evaluate(Sample(**again))
    assert more.support.people == once.support.people
    assert more.support.effective_rows == pytest.approx(once.support.effective_rows)
    for mine, theirs in zip(once.estimates, more.estimates, strict=True):
        assert (theirs.value, theirs.low, theirs.high) == pytest.approx((mine.value, mine.low, mine.high))


def test_as_many_rows_of_other_customers_narrow_the_interval_by_their_root() -> None:
    log = a_log()
    more = {name: np.tile(column, 4) for name, column in log.items()} | {"people": np.arange(1_600)}
    one, four = (by_name(evaluate(Sample(**each)))["IPS"] for each in (log, more))
    assert (one.high - one.low) / (four.high - four.low) == pytest.approx(2.0, rel=0.02)


def test_the_order_of_rows_changes_nothing() -> None:
    log = a_log()
    order = np.random.default_rng(3).permutation(400)
    mine, theirs = evaluate(Sample(**log)), evaluate(Sample(**{name: column[order] for name, column in log.items()}))
    for one, other in zip(mine.estimates, theirs.estimates, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-9)


# --- intervals ------------------------------------------------------------------------------------------------------


def test_without_skew_the_interval_is_nearly_students() -> None:
    values = np.random.default_rng(5).normal(10.0, 2.0, 30)
    low, high = interval(values, np.ones(30))
    half = 2.045 * values.std(ddof=1) / math.sqrt(30)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), rel=0.01)


def test_few_rewards_reach_further_up_than_down() -> None:
    """Clopper and Pearson, exact and cautious, say 0.0048 to 0.0183 for 10 of 1,000, and 0.0037 to 0.0066 for 50 of
    10,000."""
    low, high = interval(np.repeat([0.0, 1.0], [990, 10]), np.ones(1_000))
    assert (low, high) == pytest.approx((0.0048, 0.0183), rel=0.06)
    assert high - 0.01 > 1.5 * (0.01 - low)
    low, high = interval(np.repeat([0.0, 1.0], [9_950, 50]), np.ones(10_000))
    assert (low, high) == pytest.approx((0.0037, 0.0066), rel=0.01)


@pytest.mark.parametrize("unit", [1e-90, 1e-12, 1.0, 1e12, 1e90])
def test_no_unit_is_too_small_or_too_large(unit: float) -> None:
    values = np.repeat([0.0, 1.0, 7.0], [80, 15, 5])
    low, high = interval(values, np.ones(100))
    assert interval(values * unit, np.ones(100)) == pytest.approx((low * unit, high * unit), rel=1e-9)


def test_a_lone_customer_bounds_nothing_and_rewards_that_are_all_alike_leave_a_point() -> None:
    assert interval(np.array([3.0]), np.array([1.0])) == (-math.inf, math.inf)
    assert interval(np.full(9, 0.1), np.ones(9)) == (pytest.approx(0.1),) * 2


@pytest.mark.parametrize("rate", [0.5, 0.02])
def test_intervals_of_a_mean_hold_as_often_as_they_say(rate: float) -> None:
    """2,000 logs: what is expected within three standard errors, and never less than the bar of 0.93."""
    dice = np.random.default_rng(11)
    held = [
        low <= rate <= high
        for low, high in (interval((dice.random(2_000) < rate) * 1.0, np.ones(2_000)) for _ in range(2_000))
    ]
    assert 0.935 <= np.mean(held) <= 0.97


# --- refusals -------------------------------------------------------------------------------------------------------


def codes(found: Evaluation) -> set[str]:
    assert (found.answer is None) == bool(found.refusals)
    return {refusal.code for refusal in found.refusals}


def test_a_log_that_can_tell_is_answered_by_dr_and_without_a_model_by_snips() -> None:
    log = a_log()
    found = evaluate(Sample(**log))
    assert codes(found) == set()
    assert found.answer is not None and found.answer.name == "SNIPS"
    model = np.full(400, 0.3)
    found = evaluate(Sample(**log, model_logged=model, model_target=model))
    assert found.answer is not None and found.answer.name == "DR"


def test_propensities_that_are_wrong_are_refused() -> None:
    log = a_log()
    found = evaluate(Sample(**log | {"logged": np.full(400, 0.5)}))
    assert "weight_mean" in codes(found)
    assert "the weights average" in found.refusals[0].reason


def test_a_policy_that_does_what_the_log_could_not_is_refused_even_if_nobody_says_so() -> None:
    """Half of its choices have propensity 0 in the log: the weights of the rest average one half."""
    log = a_log()
    assert "weight_mean" in codes(evaluate(Sample(**log | {"target": log["target"] / 2})))


def test_choices_that_the_log_never_took_are_refused() -> None:
    assert codes(evaluate(Sample(**a_log(), unseen_share=0.02))) == {"unseen"}
    assert codes(evaluate(Sample(**a_log(), unseen_share=0.005))) == set()


def test_too_few_rows_or_one_that_outweighs_them_are_refused() -> None:
    assert "effective_rows" in codes(evaluate(Sample(**a_log(rows=60))))
    log = a_log(rows=2_000)
    log["logged"][0], log["target"][0] = 0.001, 0.9
    assert "effective_rows" in codes(evaluate(Sample(**log)))


def test_a_customer_who_makes_most_of_the_log_is_one_customer() -> None:
    log = a_log()
    found = evaluate(Sample(**log | {"people": np.minimum(np.arange(400), 50)}))
    assert "effective_rows" in codes(found)


@pytest.mark.parametrize("usual", [0.0, 1.0, 7.5])
def test_too_few_rewards_are_refused_whatever_the_usual_one_is(usual: float) -> None:
    log = a_log(rows=4_000)
    for unusual, refused in ((0, True), (3, True), (60, False)):
        rewards = np.full(4_000, usual)
        rewards[: unusual * 60 : 60] += 1.0
        found = evaluate(Sample(**log | {"rewards": rewards}))
        assert ("effective_rewards" in codes(found)) == refused
        assert (found.support.effective_rewards < EFFECTIVE_REWARDS_MIN) == refused


def test_a_policy_that_never_did_what_the_log_did_is_refused_and_nothing_breaks() -> None:
    found = evaluate(Sample(**a_log() | {"target": np.zeros(400)}))
    assert {"weight_mean", "effective_rows", "effective_rewards"} <= codes(found)


# --- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rewards", math.nan),
        ("rewards", math.inf),
        ("rewards", 2e12),
        ("logged", 5e-324),
        ("logged", 0.0),
        ("logged", -0.1),
        ("logged", 1.2),
        ("logged", math.nan),
        ("target", -0.1),
        ("target", 1.1),
        ("target", math.nan),
    ],
)
def test_a_row_that_cannot_be_is_named(field: str, value: float) -> None:
    log = a_log()
    log[field][17] = value
    with pytest.raises(SampleError, match=rf"row 17: {field}: .*expected") as caught:
        Sample(**log)
    assert (caught.value.row, caught.value.field) == (17, field)


def test_arrays_of_other_lengths_and_half_a_model_are_refused() -> None:
    log = a_log()
    with pytest.raises(ValueError, match="as many of everything else"):
        Sample(**log | {"target": np.ones(3)})
    with pytest.raises(ValueError, match="as many people"):
        Sample(**log | {"people": np.arange(3)})
    with pytest.raises(ValueError, match="both policies or of none"):
        Sample(**log, model_logged=np.ones(400))
    with pytest.raises(ValueError, match="at least one"):
        Sample(np.zeros(0), np.zeros(0), np.zeros(0))


# --- cross-fitting --------------------------------------------------------------------------------------------------


def test_beliefs_about_a_customer_come_from_others_alone() -> None:
    """Customers of one fold were paid the opposite of all others: what is predicted for them is what the others got."""
    people = [f"c{number}" for number in range(500)]
    folds = folds_of(people)
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}
    x = np.full((500, 1), STEPS, np.int8)
    rewards = np.where(folds == 2, 1.0, 0.0)
    models = crossfit(x, np.zeros(500, np.int64), rewards, folds, ["only"], PosteriorOptions(prior_strength=1.0))
    assert models[2].score(x[:1])[0][0, 0] == pytest.approx(0.0, abs=0.01)
    assert all(models[fold].score(x[:1])[0][0, 0] > 0.15 for fold in (0, 1, 3, 4))


def test_every_action_has_a_scale_of_its_own() -> None:
    """One brings a billion or takes it, one brings forty in a third of the cases, one five, always."""
    people = [f"c{number}" for number in range(900)]
    done, dice = np.arange(900) % 3, np.random.default_rng(1)
    worth = np.array([1e9, 40.0, 5.0])[done]
    shares = np.select([done == 0, done == 1], [dice.choice([-1.0, 1.0], 900), dice.random(900) < 1 / 3], 1.0)
    x = np.full((900, 1), STEPS, np.int8)
    for model in crossfit(x, done, worth * shares, folds_of(people), ["a", "b", "c"], PosteriorOptions()):
        [[billion, forty, five]] = model.score(x[:1])[0].tolist()
        assert abs(billion) < 2e8 and forty == pytest.approx(40 / 3, abs=3.0) and five == 5.0


def test_a_model_that_saw_the_row_would_make_noise_look_like_skill() -> None:
    """Rewards are noise, and the target picks what the model likes best. Cross-fitted, nothing is gained by that."""
    count, actions = 3_000, 20
    names = [f"a{number:02}" for number in range(actions)]
    x = np.full((count, 1), STEPS, np.int8)
    folds = folds_of(str(number) for number in range(count))
    values: dict[str, list[float]] = {"cross-fitted": [], "in-sample": []}
    for seed in range(12):
        dice = np.random.default_rng(seed)
        done = dice.integers(actions, size=count)
        rewards = (dice.random(count) < 0.3) * 1.0
        models = crossfit(x, done, rewards, folds, names, PosteriorOptions(prior_strength=1.0))
        best = np.array([int(model.score(x[:1])[0][0].argmax()) for model in models])[folds]
        top = int(np.argmax([rewards[done == action].mean() for action in range(actions)]))
        for name, picked in (("cross-fitted", best), ("in-sample", np.full(count, top))):
            found = evaluate(Sample(rewards, np.full(count, 1 / actions), (done == picked) * 1.0))
            values[name].append(by_name(found)["SNIPS"].value)
    assert np.mean(values["in-sample"]) > 0.35
    assert np.mean(values["cross-fitted"]) == pytest.approx(0.3, abs=0.03)
