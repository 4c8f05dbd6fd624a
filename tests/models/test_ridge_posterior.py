"""The posterior is the textbook's, and nothing it is given makes it fail."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import Beliefs, OfferPosterior, PosteriorOptions, Statistics, Strengths, Structure, fit, learn_strengths

OPTIONS = PosteriorOptions(prior_strength=2.0, prior_rate=0.1)


def lessons(rng: np.random.Generator, count: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.integers(-127, 128, (count, d)).astype(np.int8)
    x[:, 0] = 127
    return x, rng.integers(0, 101, count)


def learnt(d: int, **offers: tuple[np.ndarray, np.ndarray]) -> Statistics:
    stats = Statistics(d, 5)
    for offer, (x, targets) in offers.items():
        stats.learn([offer] * len(x), [0] * len(x), x, targets, [1] * len(x))
    return stats


def assert_proper(posterior: OfferPosterior) -> None:
    assert np.isfinite(posterior.mean).all() and np.isfinite(posterior.covariance).all()
    assert (posterior.covariance == posterior.covariance.T).all()
    assert np.linalg.eigvalsh(posterior.covariance).min() > 0


@pytest.mark.parametrize(
    "loadings", [{}, {"card": 1.0, "visa": -1.0, "loan": 1.0, "house": 1.0}], ids=["with", "against"]
)
def test_equals_the_joint_gaussian_of_all_weights(loadings):
    """All weights of two categories as one regression: levels of the prior are rows that tie weights to each other."""
    rng, d, rate = np.random.default_rng(1), 3, 0.1
    data = {name: lessons(rng, count, d) for name, count in (("card", 40), ("visa", 25), ("loan", 30), ("house", 5))}
    categories = {"card": "cards", "visa": "cards", "loan": "credit", "house": "credit", "new": "cards", "odd": "other"}
    strengths = Strengths(bias=3.0, inputs=2.0, apart=4.0, rates_apart=1.5, loadings=loadings)
    stats = learnt(d, **data)
    found = fit(stats, list(categories), 0, OPTIONS, Structure(0, categories), strengths)

    everything = np.vstack([x for x, _ in data.values()])[:, 1:] / 127
    square = (np.square(everything).sum() + 10.0 * (d - 1) / 3) / (100 + 10.0)
    block = np.array([3.0] + [2.0 * square] * (d - 1))
    P, top = block / ([0.6] + [0.8] * (d - 1)), block / ([0.2] + [0.1] * (d - 1))
    Q = top
    names = ["all", "cards", "credit", "other", *categories]
    at = {name: slice(i * d, (i + 1) * d) for i, name in enumerate(names)}
    rows, targets = [], []

    def tie(child: str, parent: str | None, precision: np.ndarray, mean: float = 0.0, loading: float = 1.0) -> None:
        for column in range(d):
            row = np.zeros(len(names) * d)
            row[at[child].start + column] = np.sqrt(precision[column])
            if parent:
                row[at[parent].start + column] = -np.sqrt(precision[column]) * (loading if column else 1.0)
            rows.append(row)
            targets.append(np.sqrt(precision[column]) * (mean if column == 0 else 0.0))

    tie("all", None, top, rate)
    for category in ("cards", "credit", "other"):
        tie(category, "all", Q)
    for offer, category in categories.items():
        tie(offer, category, P, loading=loadings.get(offer, 0.5) if loadings else 1.0)
    for offer, (x, y) in data.items():
        for u, target in zip(x / 127, y / 100, strict=True):
            row = np.zeros(len(names) * d)
            row[at[offer]] = u
            rows.append(row)
            targets.append(target)
    M, t = np.array(rows), np.array(targets)
    covariance = np.linalg.inv(M.T @ M)
    weights = covariance @ M.T @ t
    common = (np.square(t - M @ weights).sum() + 10.0 * 0.1 * 0.9) / (100 + 10.0)
    for offer in categories:
        np.testing.assert_allclose(found[offer].mean, weights[at[offer]], rtol=1e-8, atol=1e-10)
        x, y = data.get(offer, (np.zeros((0, d)), np.zeros(0)))
        noise = (np.square(y / 100 - x / 127 @ weights[at[offer]]).sum() + 10.0 * common) / (len(y) + 10.0)
        expected = noise * covariance[at[offer], at[offer]]
        if loadings and offer not in loadings:  # three lean one way, one the other: it is like each as often
            home = at[categories[offer]]
            m, V = weights[home], common * covariance[home, home]
            ways = [(0.75, np.array([1.0, 1.0, 1.0])), (0.25, np.array([1.0, -1.0, -1.0]))]
            expected = common * np.diag(1.0 / P) - np.outer(weights[at[offer]], weights[at[offer]])
            expected += sum(share * np.outer(L, L) * (V + np.outer(m, m)) for share, L in ways)
        np.testing.assert_allclose(found[offer].covariance, expected, rtol=1e-8, atol=1e-12)
    assert (found["card"].lessons, found["new"].lessons, found["new"].transform_version) == (40.0, 0.0, 5)


@pytest.mark.parametrize("several", [False, True], ids=["one category", "several"])
def test_rivals_equal_the_joint_gaussian_of_weights_that_come_to_little(several):
    """The covariance of all weights written down, conditioned on all lessons at once."""
    rng, d, rate = np.random.default_rng(2), 3, 0.1
    data = {name: lessons(rng, count, d) for name, count in (("card", 40), ("visa", 25), ("loan", 30), ("house", 5))}
    categories = {"loan": "credit", "house": "credit"} if several else {}
    strengths = Strengths(bias=3.0, inputs=2.0, apart=4.0, rates_apart=1.5, competing=3)
    beliefs = Beliefs(learnt(d, **data), 0, OPTIONS, Structure(0, categories), strengths)
    found = beliefs.of([*data, "new"])

    everything = np.vstack([x for x, _ in data.values()])[:, 1:] / 127
    square = (np.square(everything).sum() + 10.0 * (d - 1) / 3) / (100 + 10.0)
    names, many = list(data), 4 * 1.1  # four have lessons, whatever was counted before
    akin = np.array([[categories.get(a) == categories.get(b) for a in names] for b in names], float)
    if several:
        rates = (0.6 * np.eye(4) + 0.2 * akin + 0.2) / 3.0
        inputs = (0.8 * np.eye(4) + 0.1 * akin - 0.8 / many) / (2.0 * square)
    else:
        rates = (0.6 * np.eye(4) + 0.4) / 3.0
        inputs = (np.eye(4) - 1.0 / many) / (1.0 - 1.0 / many) / (2.0 * square)
    prior = np.zeros((4, d, 4, d))
    for column in range(d):
        prior[:, column, :, column] = inputs if column else rates
    prior = prior.reshape(4 * d, 4 * d)
    assert np.linalg.eigvalsh(prior).min() > 0.0
    u = np.zeros((100, 4, d))
    at = np.repeat(np.arange(4), [len(x) for x, _ in data.values()])
    u[np.arange(100), at] = np.vstack([x for x, _ in data.values()]) / 127
    u, y = u.reshape(100, -1), np.concatenate([y for _, y in data.values()]) / 100
    precision = np.linalg.inv(prior)
    covariance = np.linalg.inv(precision + u.T @ u)
    start = np.tile([rate] + [0.0] * (d - 1), 4)
    mean = start + covariance @ u.T @ (y - u @ start)
    common = (np.square(y - u @ mean).sum() + (mean - start) @ precision @ (mean - start) + 0.9) / (100 + 10.0)
    for offer, first in zip(names, range(0, 4 * d, d), strict=True):
        own = slice(first, first + d)
        np.testing.assert_allclose(found[offer].mean, mean[own], rtol=1e-8, atol=1e-10)
        x, targets = data[offer]
        noise = (np.square(targets / 100 - x / 127 @ mean[own]).sum() + 10.0 * common) / (len(x) + 10.0)
        np.testing.assert_allclose(found[offer].covariance, noise * covariance[own, own], rtol=1e-8, atol=1e-12)
    others, house = u[:95], slice(3 * d, 4 * d)
    alone = np.linalg.inv(precision + others.T @ others) @ others.T @ (y[:95] - others @ start) + start
    assert beliefs.by_others("house") == pytest.approx(alone[house], rel=1e-8)
    new = found["new"]  # it was not counted: its rate alone is known from others
    apart = 0.9 if several else 1.0 / (1.0 - 1.0 / many)
    assert beliefs.prior_spread("new") == pytest.approx([1.0 / 3.0] + [apart / (2.0 * square)] * (d - 1))
    assert new.mean[1:].tolist() == beliefs.by_others("new")[1:].tolist() == [0.0, 0.0]
    assert new.covariance.diagonal()[1:] / new.noise == pytest.approx(beliefs.prior_spread("new")[1:])
    assert_proper(new)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_rivals_have_proper_beliefs_whatever_is_learnt_or_taken_back_since(seed, offers, before, since, removed):
    """What is shared was worked out before; then one offer learns, another loses lessons, and a new one comes."""
    rng, d = np.random.default_rng(seed), 4
    names = [f"o{i}" for i in range(offers)]
    stats = learnt(d, **{name: lessons(rng, before, d) for name in names})
    back = lessons(rng, removed, d)
    stats.learn(["o0"] * removed, [0] * removed, *back, [1] * removed)
    beliefs = Beliefs(stats, 0, OPTIONS, Structure(), Strengths(0.5, 0.1, competing=offers))
    if offers > 1:
        stats.learn([names[-1]] * since, [0] * since, *lessons(rng, since, d), [1] * since)
    stats.learn(["o0"] * removed, [0] * removed, *back, [-1] * removed)
    stats.learn(["new"] * since, [0] * since, *lessons(rng, since, d), [1] * since)
    for posterior in beliefs.renewed(stats, [*names, "new", "newer"]).values():
        assert_proper(posterior)


def test_before_any_lesson_every_offer_has_the_configured_rate():
    found = fit(Statistics(3, 0), ["card"], 0, OPTIONS)["card"]
    assert found.mean.tolist() == [0.1, 0.0, 0.0]
    assert found.lessons == 0.0


def test_the_prior_is_as_sure_as_its_strengths_say_whatever_the_number_of_columns():
    for d in (2, 20, 200):
        found = fit(Statistics(d, 0), ["card"], 0, OPTIONS, strengths=Strengths(4.0, 2.0))["card"]
        u = np.array([1.0] + [np.sqrt(1 / 3)] * (d - 1))
        square = max((d - 1) / 3, 1e-3)
        expected = 0.1 * 0.9 * (1 / 4.0 + (d - 1) / 3 / (2.0 * square))
        assert u @ found.covariance @ u == pytest.approx(expected, rel=1e-9)


def test_without_a_customer_the_posterior_is_a_counted_rate():
    """With only a bias, no residual and a rare event, the uncertainty is that of Beta(strength · rate, ...)."""
    x = np.full((1000, 1), 127, np.int8)
    found = fit(learnt(1, card=(x, np.zeros(1000, int))), ["card"], 0, PosteriorOptions(noise_floor=1e-12))["card"]
    assert 0.0 < found.mean[0] < 1e-3
    assert 0.0 < np.sqrt(found.covariance[0, 0]) < 1e-3


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("target", [0, 100])
def test_one_sided_and_constant_lessons_have_a_proper_posterior(d, target):
    x = np.full((500, d), 127, np.int8)
    assert_proper(fit(learnt(d, card=(x, np.full(500, target))), ["card"], 0, OPTIONS)["card"])


def test_collinear_inputs_have_a_proper_posterior_at_any_scale():
    x = np.array([[127, 127, 0], [127, 0, 127]] * 50, np.int8)
    stats = learnt(3, card=(x, np.array([100, 0] * 50)))
    for _ in range(26):
        stats.merge(stats)  # 6.7 billion lessons
    found = fit(stats, ["card"], 0, OPTIONS)["card"]
    assert_proper(found)
    np.testing.assert_allclose((x[:2] / 127) @ found.mean, [1.0, 0.0], atol=1e-3)


@settings(max_examples=200, deadline=None)
@example(3, 6, 1)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 30))
def test_lessons_taken_back_elsewhere_are_survived(seed, added, removed):
    """For a moment a partition may hold more taken back than added; beliefs stay proper."""
    rng, d = np.random.default_rng(seed), 4
    stats = learnt(d, card=lessons(rng, added, d))
    x, targets = lessons(rng, removed, d)
    stats.learn(["card"] * removed, [0] * removed, x, targets, [-1] * removed)
    x, targets = lessons(rng, added, d)
    stats.learn(["loan"] * added, [0] * added, x, targets, [1] * added)
    for strengths in (None, Strengths(2.0, 0.5, competing=2)):
        for posterior in fit(stats, ["card", "loan", "new"], 0, OPTIONS, Structure(), strengths).values():
            assert_proper(posterior)


def test_a_late_positive_equals_hindsight_to_the_last_bit():
    rng, d = np.random.default_rng(3), 5
    x, _ = lessons(rng, 30, d)
    late = np.arange(30) % 7 == 0
    lived, hindsight = learnt(d, card=(x, np.zeros(30, int))), learnt(d, card=(x, late * 100))
    offers, count = ["card"] * int(late.sum()), int(late.sum())
    lived.learn(offers, [0] * count, x[late], [0] * count, [-1] * count)
    lived.learn(offers, [0] * count, x[late], [100] * count, [1] * count)
    a, b = (fit(stats, ["card"], 0, OPTIONS)["card"] for stats in (lived, hindsight))
    assert a.mean.tobytes() == b.mean.tobytes() and a.covariance.tobytes() == b.covariance.tobytes()


def test_forgetting_follows_a_change():
    x = np.full((1000, 1), 127, np.int8)
    stats = learnt(1, card=(x, np.zeros(1000, int)))
    stats.learn(["card"] * 100, [10] * 100, x[:100], [100] * 100, [1] * 100)
    forgetful = PosteriorOptions(half_life_periods=1.0)
    assert fit(stats, ["card"], 10, OPTIONS)["card"].mean[0] < 0.1
    assert fit(stats, ["card"], 10, forgetful)["card"].mean[0] > 0.9
    assert fit(stats, ["card"], 10_000, forgetful)["card"].lessons == 0.0


def rows_of(rng: np.random.Generator, count: int, d: int) -> np.ndarray:
    x = rng.integers(-127, 128, (count, d)).astype(np.int8)
    x[:, 0] = 127
    return x


def taught(rng: np.random.Generator, d: int, weights: dict[str, np.ndarray], count: int = 300) -> Statistics:
    stats = Statistics(d, 5)
    for offer, w in weights.items():
        x = rows_of(rng, count, d)
        likely = np.clip(0.3 + x[:, 1:] / 127 @ w, 0.0, 1.0)
        stats.learn([offer] * count, [0] * count, x, (rng.random(count) < likely) * 100, [1] * count)
    return stats


def test_strengths_follow_the_lessons():
    """Inputs that say nothing get a stiff prior; offers alike lean on each other."""
    rng, d = np.random.default_rng(7), 9
    silent = learn_strengths(taught(rng, d, {f"o{i}": np.zeros(d - 1) for i in range(6)}), 0, OPTIONS)
    telling = learn_strengths(taught(rng, d, {f"o{i}": rng.normal(0, 0.3, d - 1) for i in range(6)}), 0, OPTIONS)
    same = rng.normal(0, 0.3, d - 1)
    alike = learn_strengths(taught(rng, d, {f"o{i}": same for i in range(6)}), 0, OPTIONS)
    assert silent.inputs > 10 * telling.inputs
    assert alike.apart < 1.0 < telling.apart


@pytest.mark.parametrize("offers", [3, 12])
def test_offers_that_the_same_people_answer_the_other_way_teach_each_other(offers):
    """Twelve are more than the strengths are learnt from: the others are found to go with these or against them."""
    rng, d = np.random.default_rng(11), 9
    liked = rng.normal(0, 0.3, d - 1)
    signs = {f"o{i:02}": -1.0 if i % 3 == 1 else 1.0 for i in range(offers)}
    stats = taught(rng, d, {offer: sign * liked for offer, sign in signs.items()})
    strengths = learn_strengths(stats, 0, OPTIONS)
    turned = [strengths.loadings[offer] * sign for offer, sign in signs.items()]
    assert turned in ([1.0] * offers, [-1.0] * offers)
    assert strengths.apart < 1.0
    alone = Strengths(strengths.bias, strengths.inputs, apart=27.0)
    truth = np.concatenate([[0.3], liked])
    for offer, sign in signs.items():
        truth[1:] = sign * liked
        errors = [
            np.linalg.norm(fit(stats, [offer], 0, OPTIONS, Structure(), s)[offer].mean - truth)
            for s in (strengths, alone)
        ]
        assert errors[0] < errors[1]


@pytest.mark.parametrize("offers", [2, 3, 5])
def test_rivals_teach_each_other(offers):
    """Whoever takes one leaves the rest: from the others it is known to whom to make the one that was rarely made."""
    rng, d = np.random.default_rng(offers), 9
    liked = rng.normal(size=(d - 1, offers))
    stats = Statistics(d, 5)
    for offer, count in enumerate([15] + [200] * (offers - 1)):
        x = rows_of(rng, count, d)
        taken = (x[:, 1:] @ liked).argmax(axis=1) == offer
        stats.learn([f"o{offer}"] * count, [0] * count, x, taken * 100, [1] * count)
    rivals = learn_strengths(stats, 0, OPTIONS)
    assert rivals.competing == offers and not rivals.loadings
    x = rows_of(rng, 4_000, d)
    takes = (x[:, 1:] @ liked).argmax(axis=1) == 0
    hits = []
    for strengths in (rivals, replace(rivals, competing=0)):
        rare = fit(stats, ["o0"], 0, OPTIONS, Structure(), strengths)["o0"]
        hits.append(takes[np.argsort(x @ rare.mean)[-takes.sum() :]].mean())
    assert hits[0] > hits[1] + 0.05


def test_offers_that_have_nothing_in_common_neither_lean_nor_compete():
    rng, d = np.random.default_rng(12), 9
    for offers in (2, 6):
        stats = taught(rng, d, {f"o{i}": rng.normal(0, 0.3, d - 1) for i in range(offers)})
        found = learn_strengths(stats, 0, OPTIONS)
        assert (found.loadings, found.competing) == ({}, 0)


@pytest.mark.parametrize("seed", range(3))
def test_many_offers_with_a_handful_of_yeses_each_are_not_taken_for_one(seed):
    """Each of 26 is the right one for some, and 1 or 2 of 40 found that out: they may still differ."""
    rng, d, offers, count = np.random.default_rng(seed), 17, 26, 1_000
    x = rows_of(rng, count, d)
    right = (x[:, 1:] @ rng.normal(size=(d - 1, offers))).argmax(axis=1)
    made = rng.integers(0, offers, count)
    stats = Statistics(d, 5)
    stats.learn([f"o{offer:02}" for offer in made], [0] * count, x, (right == made) * 100, [1] * count)
    strengths = learn_strengths(stats, 0, PosteriorOptions(prior_strength=0.3, prior_rate=0.3))
    assert strengths.apart > 0.9
    assert strengths.inputs < 10.0


def test_strengths_survive_being_written_as_json():
    for strengths in (Strengths(1.0, 2.0), Strengths(1.0, 2.0, 3.0, 4.0, 5.0, {"card": 1.0, "loan": -1.0}, 6)):
        assert Strengths(**json.loads(json.dumps(strengths.to_json()))) == strengths


def test_waves_are_left_out_where_they_explain_nothing_and_stay_where_they_do():
    rng, count = np.random.default_rng(3), 600
    x = rows_of(rng, count, 22)
    waves = x[:, 12:]
    structure = Structure(waves=10)

    def strengths(likely: np.ndarray) -> tuple[Strengths, Statistics]:
        stats = Statistics(22, 0)
        stats.learn(["a"] * count, [0] * count, x, (rng.random(count) < likely) * 100, [1] * count)
        return learn_strengths(stats, 0, OPTIONS, structure), stats

    linear, stats = strengths(np.clip(0.5 + x[:, 1] / 254, 0, 1))
    assert np.isinf(linear.waves)
    beliefs = Beliefs(stats, 0, OPTIONS, structure, linear)
    assert beliefs.dimension == len(beliefs.of(["a"])["a"].mean) == 12
    waving, stats = strengths(np.clip(0.5 + waves[:, 3] / 254, 0, 1))
    assert np.isfinite(waving.waves)
    assert Beliefs(stats, 0, OPTIONS, structure, waving).dimension == 22


def test_renewing_what_learnt_leaves_what_is_shared_alone():
    rng, d = np.random.default_rng(5), 4
    stats = learnt(d, card=lessons(rng, 50, d), loan=lessons(rng, 50, d))
    strengths = Strengths.declared(OPTIONS)
    beliefs = Beliefs(stats, 0, OPTIONS, Structure(), strengths)
    before = beliefs.of(["card", "loan", "new"])
    x, targets = lessons(rng, 20, d)
    stats.learn(["card"] * 20, [0] * 20, x, targets, [1] * 20)
    after = beliefs.renewed(stats, ["card", "loan", "new"])
    assert after["card"].lessons == 70.0
    assert np.trace(after["card"].covariance) < np.trace(before["card"].covariance)
    for offer in ("loan", "new"):
        np.testing.assert_array_equal(after[offer].mean, before[offer].mean)


@pytest.mark.parametrize(
    "wrong",
    [{"prior_strength": 0.0}, {"prior_rate": 1.5}, {"half_life_periods": 0.0}, {"noise_floor": float("nan")}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PosteriorOptions(**wrong)
