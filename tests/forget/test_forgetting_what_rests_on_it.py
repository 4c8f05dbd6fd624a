"""What rests on a person beside plain lessons goes, too: rewards, beliefs, policies kept, copies for a household."""

import numpy as np
import pytest

from engine.attribution import Attribution
from engine.learner import posterior_options
from engine.lifecycle import Stage
from engine.replay import Verdict
from engine.replaying import replay
from engine.rollups import entity_name
from engine.store import StoreUnavailable
from features import Offset
from models import Beliefs, Statistics, Strengths, learn_strengths, pack_offer
from tests.forget.test_forgetting import everything, forget, live
from tests.forget.test_unlearning import CATALOGUE, GONE, Step, World
from tests.identity_shop import COOKIE, ask, buys
from tests.small_engine import CONFIG, DAY_MS, PARTITIONS, SmallEngine, catalogue_of, features_of

REWARDED = CONFIG.replace(b"id: card\n", b"id: card\n    rewards: [-20, 80]\n", 1).replace(
    b"    window: 3d\n", b"    outcomes: {accepted: {window: 3d, reward: 0.25}, fulfilled: {window: 6d}}\n", 1
)
ROLLED = (
    CONFIG.replace(
        b"events:\n",
        b"identities: [{kind: cookie}]\nentities: [{kind: household, attribute: household_id}]\n"
        b"events:\n  - {type: move, attributes: {household_id: {type: text}}}\n",
        1,
    )
    .replace(
        b"features:\n",
        b"features:\n  - {name: house_spent, entity: household, event: purchase, function: sum, attribute: amount}\n",
        1,
    )
)


HEAD: list[Step] = [
    ("decide", 0, GONE, 1, [0, 1], 1),
    ("report", 0, 1, Stage.ACCEPTED, 1, 11.1, "first"),
    ("report", 0, 1, Stage.ACCEPTED, 1, 37.3, "second", "first"),  # no whole share: chance decides between two targets
    ("report", 0, 2, Stage.ACCEPTED, 1),  # waits for its delivery
    ("decide", 1, GONE, 1, [1, 0], 2),
    ("report", 1, 1, Stage.ACCEPTED, 1),
    ("report", 1, 2, Stage.ACCEPTED, 1, -12.9),
    ("decide", 2, "bob", 1, [0, 1], 3),
    ("report", 2, 1, Stage.ACCEPTED, 1, 41.7),
    ("report", 2, 2, Stage.ACCEPTED, 1),
]
DELIVERED: list[Step] = [("report", 1, 1, Stage.FULFILLED, 1), ("report", 2, 2, Stage.FULFILLED, 1)]
TIME: list[Step] = [("decide", 3, "zed", 20 * DAY_MS, [], 4), ("decide", 4, "ann2", 0, [], 5)]


@pytest.mark.parametrize("steps", [[*HEAD], [*HEAD, *DELIVERED], [*HEAD, *TIME]], ids=["waits", "delivered", "late"])
@pytest.mark.parametrize("terms_changed", [False, True])
async def test_what_was_rewarded_is_taken_back_as_it_was_taught(steps: list[Step], terms_changed: bool) -> None:
    catalogue = catalogue_of(REWARDED)
    here, there = World(catalogue), World(catalogue)
    for step in steps:
        await here.take(step)
        await there.take(step, without=GONE)
    assert await here.statistics() != await there.statistics()
    if terms_changed:
        for world in (here, there):
            await world.learning.save()
            world.catalogue = catalogue_of(REWARDED.replace(b"[-20, 80]", b"[-20, 180]"))
            world.learning = world.new_life()
    await here.forget(GONE)
    assert await here.statistics() == await there.statistics()
    for attribution in (await here.learning.learner()).attributions:
        assert attribution._courses.keys() <= attribution._decisions.keys()
    for world in (here, there):
        await world.take(("decide", 5, "dora", 20 * DAY_MS, [], 6))
        await world.take(("decide", 6, GONE, 0, [], 6))
    assert await here.statistics() == await there.statistics(), "nothing of it comes back when windows close"


async def test_what_was_rewarded_and_let_go_is_taken_back_by_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Attribution.absorb, "__defaults__", (2,))
    catalogue = catalogue_of(REWARDED)
    here, there = World(catalogue), World(catalogue)
    for world, without in ((here, ""), (there, GONE)):
        for step in HEAD[:4]:
            await world.take(step, without)
        for number, person in ((2, "bob"), (3, "carl"), (4, "dora")):
            await world.take(("decide", number, person, 1, [0, 1], 3))
            await world.take(("report", number, 1, Stage.ACCEPTED, 1, 41.7))
        await world.learn()
    followed = (await here.learning.learner()).attributions[here.home(GONE)]
    assert not followed.stages(here.decisions[0][1]), "hers was let go"
    assert await here.statistics() != await there.statistics()
    await here.forget(GONE)
    assert await here.statistics() == await there.statistics()


async def test_beliefs_and_what_they_start_from_are_those_of_the_sums_without_the_person() -> None:
    here, there = World(), World()
    number = 0
    for _ in range(4):
        for person in (GONE, *(f"c{at}" for at in range(12))):
            number += 1
            for world, without in ((here, ""), (there, GONE)):
                await world.take(("decide", number, person, 60_000, [number % 3], number), without)
                stage = Stage.ACCEPTED if person == GONE or number % 4 == 0 else Stage.DECLINED
                await world.take(("report", number, 1, stage, 60_000), without)
        await here.learn()
        await here.learning.publish()
    learner = await here.learning.learner()
    learner._strengths, learner._lessons_weighed = Strengths(300.0, 300.0), 10**9  # what she has made of them, say
    await here.forget(GONE)
    await here.learn()
    assert await here.store.kept_policies() == [learner.policy_version]
    sums = Statistics.from_bytes(await there.statistics())
    now_period = learner.clock_ms // CATALOGUE.config.learning.period
    options, structure = posterior_options(CATALOGUE), CATALOGUE.structure
    strengths = learn_strengths(sums, now_period, options, structure)
    assert learner._strengths == strengths
    beliefs = Beliefs(sums, now_period, options, structure, strengths).of(CATALOGUE.offer_ids)
    _, offers = await here.store.read_policy()
    assert offers == {offer: pack_offer(belief) for offer, belief in beliefs.items()}


async def test_policies_kept_from_before_go_or_the_person_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SmallEngine()
    for _ in range(2):
        await live(engine, "ann", "bob")
        await engine.learn()
    keep, failures = engine.store.keep_policy, [StoreUnavailable("away")]

    async def failing(*given: object) -> None:
        if failures:
            raise failures.pop()
        await keep(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.store, "keep_policy", failing)
    with pytest.raises(StoreUnavailable):
        await forget(engine)
    assert len(await engine.store.kept_policies()) > 1
    assert any(known.pending for known in (await engine.store.forgets()).values())
    engine.learning._learner = None  # as `run` does where the store was away
    assert not (await forget(engine)).learner_pending
    assert len(await engine.store.kept_policies()) == 1


async def test_copies_for_a_household_go_and_its_sums_stay() -> None:
    engine = SmallEngine(ROLLED)
    for customer in ("annabella", "bob"):
        await engine.publish("move", customer, household_id="h1")
        await engine.fold()
    await buys(engine, 10, "", COOKIE)
    await ask(engine, "annabella", COOKIE)
    await buys(engine, 20, "annabella")
    await buys(engine, 40, "", COOKIE)
    await buys(engine, 80, "bob")
    engine.now_ms += 1
    await engine.settle()
    name = entity_name("household", "h1")

    async def copies() -> list[bytes]:
        logs = await engine.store.read_events(dict.fromkeys(range(PARTITIONS), Offset.ZERO), 1_000, 0)
        return [entry.data for log in logs.values() for entry in log if b'"@from":' in entry.data]

    there = await copies()
    assert len(there) == 3, "what the cookie did before it was known to be hers is nobody's"
    assert (await replay(engine.catalogue, engine.store, now_ms=engine.now_ms)).verdict is Verdict.EQUAL
    assert (await forget(engine, "annabella")).events >= 3
    left = await copies()
    assert len(left) == 1, "that of what bob bought"
    assert b"80" in left[0]
    assert b"annabella" not in await everything(engine)
    assert (await engine.store.read_features([name]))[0] is not None
    assert features_of(await engine.customer("bob"))["house_spent"] == 140
    assert (await replay(engine.catalogue, engine.store, now_ms=engine.now_ms)).verdict is Verdict.EQUAL
    await buys(engine, 5, "bob")
    assert features_of(await engine.customer("bob"))["house_spent"] == 145
    assert sum((await engine.store.backlog()).values()) == 0


@pytest.mark.parametrize("serves", [b"serves: 0.3, ", b""])
async def test_beliefs_of_a_challenger_are_made_of_the_sums_that_are_left(serves: bytes) -> None:
    """Its strengths are learnt step by step, and each step leans on the one before."""
    text = CONFIG + b"challengers: [{name: calm, " + serves + b"model: {ours: {prior_rate: 0.2}}}]\n"
    engine = SmallEngine(text)
    await engine.store.save_config(engine.catalogue.version, text)
    dice = np.random.default_rng(3)
    for step in range(200):
        name, minutes = ("ann" if step % 7 else f"x{step}"), int(dice.integers(0, 60))
        answer = await engine.decide(name, limit=1, context={"minutes": minutes, "intent": ["pay", "leave"][step % 2]})
        likes = (minutes > 30) == (answer.offers[0].offer_id == "card") if name == "ann" else dice.random() < 0.2
        await engine.report(answer.decision_id, answer.offers[0].offer_id, "accepted" if likes else "declined")
        engine.now_ms += 60_000
        if step % 7 == 0:
            await engine.learn()
    await engine.learn()
    model = engine.learning._challengers._models["calm"]
    before = model.strengths
    await forget(engine, "ann")
    learner = await engine.learning.learner()
    alone, beliefs = learner.beliefs(model.options, None)
    assert model.strengths == alone != before
    packed = {offer: pack_offer(belief) for offer, belief in beliefs.items()}
    assert model._policy.mean_weights.tobytes() == model._policy.replaced(packed, 1).mean_weights.tobytes()
