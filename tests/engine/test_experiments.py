"""Control groups and experiments: who is in which arm, what that changes, and that nothing else changes."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from faulty_store import FaultyStore
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from engine.errors import ConfigError
from engine.experiments import CHAMPIONS, OUTSIDE, Assignment, Experiments
from engine.experiments_schema import Arm, Experiment
from engine.record import DecisionRecord, decision_id
from engine.store import StoreUnavailable, partition_of
from opportune.v1 import common_pb2, decisions_pb2
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, START_MS, SmallEngine, catalogue_of

EVERYWHERE = CONFIG.replace(b"    channels: [branch]\n", b"")
EVERYWHERE = EVERYWHERE.replace(b"    value: 30\n", b"    value: 30\n    lever: 3\n")
PEOPLE = [f"person-{n}" for n in range(100_000)]


def experiment(**fields: Any) -> Experiment:
    given_arms = fields.pop("arms", [("control", 0.1, "control")])
    arms = [Arm(name=name, share=share, policy=policy) for name, share, policy in given_arms]
    return Experiment(name=fields.pop("name", "autumn"), arms=arms, **fields)


def arms_of(one: Experiment, people: Iterable[str] = PEOPLE) -> np.ndarray:
    assignment = Assignment(one)
    return np.array([assignment.arm(person) for person in people])


def with_experiments(*lines: str, base: bytes = EVERYWHERE) -> bytes:
    return base + ("experiments:\n" + "".join(f"  - {line}\n" for line in lines)).encode()


def one_arm(policy: str, more: str = "", share: float = 0.5) -> bytes:
    return with_experiments(f"{{name: autumn, arms: [{{name: arm, share: {share}, policy: {policy}{more}}}]}}")


async def record_of(engine: SmallEngine, answer: decisions_pb2.DecideResponse) -> DecisionRecord:
    partition = partition_of(answer.customer_id, PARTITIONS)
    for at, data in engine.store._decisions[partition].data.items():  # type: ignore[attr-defined]
        if decision_id(partition, at) == answer.decision_id:
            return DecisionRecord.unpack(data)
    raise AssertionError("no record")


# --- who is in which arm --------------------------------------------------------------------------------------------


def test_people_are_spread_as_the_shares_say() -> None:
    one = experiment(arms=[("a", 0.05, "greedy"), ("b", 0.2, "greedy"), ("c", 0.1, "greedy"), ("d", 0.02, "greedy")])
    counts = Counter(arms_of(one).tolist())
    shares = {0: 0.05, 1: 0.2, 2: 0.1, 3: 0.02, CHAMPIONS: 0.63}
    found = chisquare([counts[arm] for arm in shares], [share * len(PEOPLE) for share in shares.values()])
    assert found.pvalue > 0.001


def test_the_arm_of_a_person_is_for_good() -> None:
    """These are written down: a release that moves people between arms would spoil every experiment that runs."""
    assignment = Assignment(experiment(arms=[("a", 0.3, "greedy"), ("b", 0.3, "greedy")], salt="2026"))
    assert [assignment.arm(f"customer-{n}") for n in range(12)] == [1, -1, -1, 1, 1, -1, -1, 0, 0, -1, -1, 1]


def test_experiments_and_layers_are_independent() -> None:
    arms = [("a", 0.3, "greedy"), ("b", 0.2, "greedy")]
    first = arms_of(experiment(name="first", arms=arms))
    second = arms_of(experiment(name="second", arms=arms))
    halves = arms_of(experiment(name="first", layer="pricing", people=(0.0, 0.5), arms=arms))
    assert chi2_contingency(np.histogram2d(first, second, 3)[0]).pvalue > 0.001
    # Who is in an experiment tells nothing about the arm, even where layer and experiment have one salt.
    same_salt = arms_of(experiment(name="first", layer="first", people=(0.0, 0.5), arms=arms))
    for half in (halves, same_salt):
        inside = half != OUTSIDE
        assert (half[inside] == first[inside]).all()
        assert chi2_contingency(np.histogram2d(inside, first, (2, 3))[0]).pvalue > 0.001


def test_experiments_of_a_layer_share_nobody() -> None:
    parts = [(0.0, 0.3), (0.3, 0.5), (0.9, 1.0)]
    found = [arms_of(experiment(name=f"x{n}", layer="main", people=part)) for n, part in enumerate(parts)]
    inside = np.array([arms != OUTSIDE for arms in found])
    assert inside.sum(axis=0).max() == 1
    assert inside.mean(axis=1) == pytest.approx([0.3, 0.2, 0.1], abs=0.006)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 0.12), st.floats(0.0, 0.05)), min_size=1, max_size=5), st.integers(0, 4))
def test_a_share_that_grows_takes_from_the_champion_alone(shares: list[tuple[float, float]], which: int) -> None:
    which %= len(shares)
    before = [(f"arm{n}", share, "greedy") for n, (share, _) in enumerate(shares)]
    after = [(name, share + shares[which][1] * (n == which), how) for n, (name, share, how) in enumerate(before)]
    people = PEOPLE[:3_000]
    was, now = (arms_of(experiment(arms=arms), people) for arms in (before, after))
    moved = was != now
    assert set(was[moved].tolist()) <= {CHAMPIONS} and set(now[moved].tolist()) <= {which}
    # An arm that is added at the end moves nobody else, either.
    more = arms_of(experiment(arms=[*before, ("new", 0.03, "greedy")]), people)
    assert set(was[was != more].tolist()) <= {CHAMPIONS}


def test_more_people_of_a_layer_leave_arms_as_they_are() -> None:
    was, now = (arms_of(experiment(layer="main", people=(0.2, high))) for high in (0.4, 0.7))
    assert set(was[was != now].tolist()) == {OUTSIDE}


def test_the_salt_alone_decides_and_an_experiment_ends() -> None:
    people = PEOPLE[:2_000]
    same = [arms_of(experiment(name=name, salt="2026"), people) for name in ("autumn", "renamed")]
    other = arms_of(experiment(salt="2027"), people)
    assert (same[0] == same[1]).all() and (same[0] != other).any()
    arms = "[{name: c, share: 1, policy: champion}]"
    text = with_experiments(f"{{name: autumn, starts_ms: 1000, ends_ms: 2000, arms: {arms}}}")
    experiments = Experiments(catalogue_of(text).config)
    assert [experiments.of("ann", time_ms).names for time_ms in (999, 1_000, 1_999, 2_000)] == [
        (), ("autumn:c",), ("autumn:c",), ()
    ]  # fmt: skip


# --- what arms change -----------------------------------------------------------------------------------------------


async def test_a_control_group_is_offered_nothing_and_the_answer_says_so() -> None:
    engine = SmallEngine(one_arm("control"))
    plain = SmallEngine(EVERYWHERE)
    seen = Counter[str]()
    for n in range(60):
        answer, without = await engine.decide(f"person-{n}"), await plain.decide(f"person-{n}")
        [arm] = answer.arms
        seen[arm] += 1
        if arm == "autumn:champion":
            assert [offer.SerializeToString() for offer in answer.offers] == [
                offer.SerializeToString() for offer in without.offers
            ]
            continue
        assert not answer.offers and answer.nothing_reason.code == "control_group"
        record = await record_of(engine, answer)
        assert record.basis is not None and record.nothing_propensity == 1.0
        assert [engine.catalogue.holds.names[hold.limit] for hold in record.basis.holds] == ["control group autumn"]
        explained = await engine.explain(answer.decision_id)
        assert list(explained.arms) == ["autumn:arm"] and "control group autumn" in explained.summary
        codes = {c.offer_id: c.reasons[0].code for c in explained.candidates}
        assert codes == {"card": "control_group", "helpline": "control_group", "loan": "not_eligible"}
    assert min(seen.values()) > 15


async def test_a_control_group_gets_what_it_is_not_spared() -> None:
    engine = SmallEngine(one_arm("control", ", spares: {kinds: [sale], channels: [web]}"))
    for n in range(40):
        web, branch = await engine.decide(f"person-{n}", "web"), await engine.decide(f"person-{n}", "branch")
        if web.arms[0] == "autumn:arm":
            assert {offer.offer_id for offer in web.offers} <= {"helpline"}
            assert web.nothing_reason.code in ("", "silence")
            in_branch = await record_of(engine, branch)
            assert in_branch.basis is not None and not in_branch.basis.holds
    engine = SmallEngine(one_arm("control", ", spares: {categories: [general], exempt: [service]}", share=0.99))
    shown = {offer.offer_id for n in range(40) for offer in (await engine.decide(f"person-{n}")).offers}
    assert "helpline" in shown


async def test_repeats_fallbacks_and_every_channel_agree() -> None:
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(one_arm("control"), store)
    arms: dict[str, str] = {}
    for n in range(30):
        first = await engine.decide(f"person-{n}", request_id="once")
        again = await engine.decide(f"person-{n}", request_id="once")
        assert again.repeated and list(again.arms) == list(first.arms)
        assert again.nothing_reason.code == first.nothing_reason.code
        arms[f"person-{n}"] = first.arms[0]
    engine.now_ms += 90 * DAY_MS
    store.failing["read"] = StoreUnavailable("away")
    for person, arm in arms.items():
        answer = await engine.decide(person, "web")
        assert answer.degraded and list(answer.arms) == [arm]
        assert bool(answer.offers) == (arm == "autumn:champion")
        assert answer.offers or answer.nothing_reason.code == "control_group"


async def test_without_levers_the_score_is_value_times_estimate_less_cost() -> None:
    engine = SmallEngine(one_arm("no_levers", share=0.5))
    seen = Counter[str]()
    for n in range(40):
        answer = await engine.decide(f"person-{n}")
        for offer in answer.offers:
            lever = 3.0 if offer.offer_id == "helpline" and answer.arms[0] == "autumn:champion" else 1.0
            record = await record_of(engine, answer)
            mean = record.slate[offer.rank - 1].mean
            assert offer.score == pytest.approx(mean * offer.value * lever - offer.contact_cost, rel=1e-5)
            seen[answer.arms[0]] += 1
        explained = await engine.explain(answer.decision_id)
        for candidate in explained.candidates:
            if candidate.HasField("factors") and candidate.rank:
                assert candidate.factors.worth == pytest.approx(candidate.score, rel=1e-4)
    assert len(seen) == 2


async def taught(text: bytes) -> SmallEngine:
    """An engine that has learnt that who wants to pay wants a card."""
    engine = SmallEngine(text)
    for n in range(80):
        for intent in ("pay", "leave"):
            answer = await engine.decide(f"{intent}-{n}", context={"intent": intent})
            for offer in answer.offers:
                await engine.report(answer.decision_id, offer.offer_id, "accepted" if intent == "pay" else "declined")
    await engine.learn()
    return engine


async def test_without_a_model_all_are_expected_to_do_the_same() -> None:
    engine = await taught(one_arm("no_model"))
    estimates: dict[str, set[float]] = {"autumn:champion": set(), "autumn:arm": set()}
    for n in range(24):
        answer = await engine.decide(f"new-{n}", context={"intent": ["pay", "leave"][n % 2]})
        record = await record_of(engine, answer)
        estimates[answer.arms[0]] |= {
            choice.mean for choice in record.slate if choice.key == engine.catalogue.offer_keys[0]
        }
        # The vector is the customer's all the same: that is what is learnt from.
        assert record.x == engine_vector(engine, ["pay", "leave"][n % 2], record)
        explained = await engine.explain(answer.decision_id)
        assert explained.exact, explained.caveat
        if answer.arms[0] == "autumn:arm":
            assert all(abs(part.probability) < 0.01 for c in explained.candidates for part in c.contributions)
    assert len(estimates["autumn:arm"]) == 1
    assert max(estimates["autumn:champion"]) > 2 * min(estimates["autumn:champion"])


def engine_vector(engine: SmallEngine, intent: str, record: DecisionRecord) -> bytes:
    values = np.full((1, len(engine.catalogue.columns)), np.nan)
    values[:, engine.catalogue.feature_count :] = engine.catalogue.fact_defaults
    values[:, : engine.catalogue.feature_count] = engine.catalogue.layout.read([None], np.array([record.time_ms]))
    values[0, engine.catalogue.fact_columns["intent"]] = ["pay", "borrow", "leave"].index(intent)
    return engine.catalogue.transform.apply(values).tobytes()


async def test_eligibility_only_draws_evenly_and_greedy_does_not_draw() -> None:
    engine = await taught(
        with_experiments(
            "{name: autumn, arms: [{name: even, share: 0.4, policy: eligibility_only}, "
            "{name: best, share: 0.4, policy: greedy}]}"
        )
    )
    first = Counter[str]()
    for n in range(400):
        answer = await engine.decide(f"new-{n}", context={"intent": "pay"}, limit=2)
        propensities = [offer.propensity for offer in answer.offers]
        if answer.arms[0] == "autumn:even":
            assert propensities == [0.5, 1.0]  # of the two that are eligible, then of the one that is left
            first[answer.offers[0].offer_id] += 1
        elif answer.arms[0] == "autumn:best":
            assert set(propensities) <= {1.0}
            assert not any(reason.code == "explored" for offer in answer.offers for reason in offer.reasons)
    assert chisquare(list(first.values())).pvalue > 0.001 and len(first) == 2


async def test_where_nothing_may_be_tried_an_even_draw_gives_the_best() -> None:
    text = one_arm("eligibility_only", share=0.9) + b"exploration: {never: [vip], budget: {share: 0.0}}\n"
    engine = SmallEngine(text)
    for n in range(30):
        vip = await engine.decide(f"vip-{n}", context={"vip": True})
        plain = await engine.decide(f"plain-{n}", context={"vip": False}, limit=1)
        assert {offer.propensity for offer in vip.offers} <= {1.0}
        if plain.arms[0] == "autumn:arm":
            assert [offer.propensity for offer in plain.offers] == [0.5]


async def test_lessons_of_arms_count_and_estimates_that_are_nobodys_do_not_calibrate() -> None:
    policies = "no_levers", "no_model", "eligibility_only", "control"
    personal, impersonal, even, control = [await lessons_of(one_arm(policy, share=0.999)) for policy in policies]
    assert personal[0] and impersonal[0] and even[0] and not control[0]
    assert personal[1] and even[1] and not impersonal[1]


async def lessons_of(text: bytes) -> tuple[int, bool]:
    """(lessons, whether anything was calibrated)"""
    engine = SmallEngine(text)
    people = [f"person-{n}" for n in range(20)]
    people = [p for p in people if engine.catalogue.experiments.of(p, START_MS).names == ("autumn:arm",)]
    for person in people:
        answer = await engine.decide(person)
        for offer in answer.offers:
            await engine.report(answer.decision_id, offer.offer_id, "accepted")
    await engine.learn()
    learner = await engine.learning.learner()
    return learner.lessons, bool(learner.calibration)


async def test_a_batch_of_all_arms_decides_as_one_alone() -> None:
    """Who else is in a batch changes nothing, and the champion's decisions are those of no experiment at all."""
    text = with_experiments(
        "{name: one, arms: [{name: control, share: 0.2, policy: control}, {name: even, share: 0.2, policy: "
        "eligibility_only}, {name: best, share: 0.2, policy: greedy}]}",
        "{name: two, arms: [{name: plain, share: 0.3, policy: no_levers}, {name: all, share: 0.3, policy: no_model}]}",
    )
    together, alone, without = SmallEngine(text), SmallEngine(text), SmallEngine(EVERYWHERE)
    people = [f"person-{n}" for n in range(64)]
    answers = await asyncio.gather(*(together.decide(person) for person in people))
    kinds = set()
    for person, answer in zip(people, answers, strict=True):
        single, plain = await alone.decide(person), await without.decide(person)
        records = [await record_of(engine, one) for engine, one in ((together, answer), (alone, single))]
        assert records[0].slate == records[1].slate and records[0].basis == records[1].basis
        kinds.add(tuple(answer.arms))
        if tuple(answer.arms) == ("one:champion", "two:champion"):
            assert records[0].slate == (await record_of(without, plain)).slate
    assert len(kinds) >= 9


async def test_a_visitor_who_logs_in_gets_the_arm_of_the_customer() -> None:
    text = one_arm("control") + b"identities: [{kind: cookie}]\n"
    engine = SmallEngine(text)
    arms = engine.catalogue.experiments
    cookie = next(f"c{n}" for n in range(99) if arms.of(f"cookie=c{n}", START_MS).controls)
    ann = next(f"ann{n}" for n in range(99) if not arms.of(f"ann{n}", START_MS).controls)
    traces = [common_pb2.Identity(kind="cookie", value=cookie)]
    before = await engine.decide("", "web", identities=traces)
    assert list(before.arms) == ["autumn:arm"]
    await engine.decide(ann, "web", identities=traces)
    await engine.settle()
    after = await engine.decide("", "web", identities=traces)
    assert after.customer_id == ann and list(after.arms) == ["autumn:champion"]


# --- wrong input ----------------------------------------------------------------------------------------------------


def arm(more: str = "", policy: str = "greedy") -> str:
    return f"arms: [{{name: x, share: 0.1, policy: {policy}{more}}}]"


def arms(*shares: float) -> str:
    return "arms: [" + ", ".join(f"{{name: x{n}, share: {s}, policy: greedy}}" for n, s in enumerate(shares)) + "]"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("arms: []", "experiments[0].arms"),
        (arms(1.2), "experiments[0].arms[0].share"),
        (arm(policy="best"), "experiments[0].arms[0].policy"),
        ("arms: [{name: champion, share: 0.1, policy: greedy}]", "'champion' is the arm of all others"),
        (arms(1.0), "nobody is left to compare with"),
        (arms(0.6, 0.6), "add up to 1.2"),
        (arms(0.6, 0.1, 0.1), "both cover 0.5 to 0.6"),
        (arm(", at: 0.95"), "reach beyond 1"),
        ("people: [0.5, 0.5], " + arm(), "from < to"),
        ("ends_ms: 5, starts_ms: 5, " + arm(), "after starts_ms"),
        (arm(", spares: {kinds: [sale]}"), "only an arm with policy: control"),
        (arm(", spares: {channels: [fax]}", "control"), "there is no 'fax'"),
        (arm(", spares: {categories: [cars]}", "control"), "there is no 'cars'"),
        ("goal: {event: sale}, " + arm(), "no event type 'sale'"),
        ("goal: {event: purchase, value: category}, " + arm(), "no number"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(line: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue_of(with_experiments(f"{{name: a, {line}}}"))
    assert told in str(caught.value) and "experiments[0]" in str(caught.value)


def test_two_experiments_do_not_share_names_salts_or_sections() -> None:
    for lines, told in (
        ((f"{{name: a, {arm()}}}", f"{{name: a, {arm()}}}"), "already there as experiments[0]"),
        ((f"{{name: a, {arm()}}}", f"{{name: b, salt: a, {arm()}}}"), "experiments[0] has the salt 'a', too"),
        ((f"{{name: a, layer: l, people: [0, 0.5], {arm()}}}", f"{{name: b, layer: l, people: [0.4, 1], {arm()}}}"),
         "both cover 0.4 to 0.5"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            catalogue_of(with_experiments(*lines))
        assert told in str(caught.value)
