"""What an outcome was worth: stages with shares, rewards in parts, mistakes that are corrected."""

import pytest

from engine.errors import InvalidArgument, NotAllowed
from engine.replay import Findings, Verdict
from engine.replaying import replay
from models import unpack_offer
from tests.small_engine import CONFIG, DAY_MS, START_MS, SmallEngine, catalogue_of

OFFERS = b"""
opportune: 1
name: rewards
limit: 2
silence: false
channels: [{id: branch}]
objectives: {revenue: 1, satisfaction: 20}
offers:
  - id: loan
    value: 100
    outcomes: {accepted: {window: 7d, reward: 0.2}, fulfilled: {window: 30d, reward: 1}}
    treatments: [{text: A loan}]
  - {id: fund, value: 60, rewards: [-50, 200], treatments: [{text: A fund}]}
"""


class Told(SmallEngine):
    """An engine that has made ann both offers."""

    def __init__(self) -> None:
        super().__init__(OFFERS)
        self.decision_id = ""

    async def tell(self, days: int, offer: str, stage: str, outcome_id: str = "", **fields: object) -> None:
        if not self.decision_id:
            self.decision_id = (await self.decide("ann")).decision_id
        self.now_ms += days * DAY_MS
        await self.report(self.decision_id, offer, stage, outcome_id, **fields)
        await self.learn()

    async def time_passes(self, days: int) -> None:
        """Only the log moves time; bob, of the same partition, is shown nothing."""
        self.now_ms += days * DAY_MS
        other = await self.decide("bob-5")
        for offer in other.offers:
            await self.report(other.decision_id, offer.offer_id, "not_presented")
        await self.learn()


async def loan(engine: Told) -> tuple[float, float]:
    """(lessons, Σ target in hundredths) of the loan; the first column of x is always 127."""
    _, b, n, *_ = (await engine.learning.learner()).statistics.combined("loan", 0, None)
    return n, b[0] / 127


async def fund(engine: Told) -> tuple[float, float]:
    _, b, n, *_ = (await engine.learning.learner()).statistics.combined("fund", 0, None)
    return n, b[0] / 127


async def test_an_acceptance_waits_for_its_delivery() -> None:
    """Nothing is concluded while the delivery may still come; then the acceptance is worth its share."""
    engine = Told()
    await engine.tell(1, "loan", "accepted")
    assert await loan(engine) == (0, 0)
    await engine.time_passes(29)
    assert await loan(engine) == (1, 20)


async def test_a_late_delivery_reverses_that() -> None:
    engine = Told()
    await engine.tell(1, "loan", "accepted")
    await engine.time_passes(29)
    await engine.tell(30, "loan", "fulfilled")
    assert await loan(engine) == (1, 100)


async def test_instalments_add_up() -> None:
    """Of −50 to 200: 25 is 30 hundredths, and with 50 more 50 hundredths. Told twice, it counts once."""
    engine = Told()
    await engine.tell(1, "fund", "accepted", "first", rewards={"revenue": 25})
    assert await fund(engine) == (1, 30)
    for _ in range(2):
        await engine.tell(1, "fund", "accepted", "second", rewards={"revenue": 30, "satisfaction": 1})
    assert await fund(engine) == (1, 50)


async def test_clicks_without_a_yes_speak_for_an_offer_of_which_a_yes_brings_something() -> None:
    """Of two customers that clicked one bought for 120: both responded, and the model learns that beside the reward."""
    engine = Told()
    await engine.tell(1, "fund", "clicked")
    await engine.tell(0, "loan", "declined")
    await engine.time_passes(10)
    learner = await engine.learning.learner()
    assert await fund(engine) == (1, 20), "a reward of 0, between −50 and 200"
    assert learner.statistics.combined("fund", 0, None).r[0] == 127
    assert learner.statistics.combined("loan", 0, None).r[0] == 0
    engine.decision_id = (await engine.decide("eve")).decision_id
    await engine.tell(1, "fund", "accepted", rewards={"revenue": 120})
    assert await fund(engine) == (2, 20 + 68)
    assert learner.statistics.combined("fund", 0, None).r[0] == 2 * 127
    _, beliefs = learner.snapshot(whole=True)
    mean = unpack_offer(beliefs["fund"]).mean[0]
    assert 0.05 < mean < 2.0, "shares of 60"


async def test_a_mistake_is_corrected_as_if_it_had_not_been_made() -> None:
    """The yes was another customer's: corrected, what was learnt is what a no would have taught."""
    engine, right = Told(), Told()
    await engine.tell(1, "fund", "accepted", "wrong", rewards={"revenue": 120})
    await engine.tell(0, "fund", "declined", "right", corrects="wrong")
    await right.tell(1, "fund", "declined")
    assert await engine.statistics() == await right.statistics()
    again = await engine.report(engine.decision_id, "fund", "accepted", "wrong")
    assert again.duplicate
    assert again.stage == 4, "it stays declined"


async def test_a_cancellation_takes_all_parts_back_and_may_cost() -> None:
    """Sold for 100, delivered, cancelled at a cost of 25: of −50 to 200 that is 10 hundredths."""
    engine = Told()
    await engine.tell(1, "fund", "accepted", rewards={"revenue": 100})
    await engine.tell(1, "fund", "fulfilled")
    await engine.tell(1, "fund", "cancelled", rewards={"revenue": -25})
    assert await fund(engine) == (1, 10)


async def test_the_logs_tell_the_same_afterwards() -> None:
    """Replay makes the checkpoint from the log again, and ledgers agree with it, corrections and parts included."""
    engine = Told()
    await engine.tell(1, "fund", "accepted", "a", rewards={"revenue": 25})
    await engine.tell(1, "fund", "accepted", "b", value=50.0)
    await engine.tell(1, "fund", "accepted", "c", corrects="a", rewards={"revenue": 20})
    await engine.tell(0, "loan", "accepted")
    await engine.learning.save()
    findings = await replay(engine.catalogue, engine.store, now_ms=engine.now_ms)
    assert findings.verdict is Verdict.EQUAL, findings


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [(b"function: sum", b"function: last", Verdict.CANNOT_TELL), (b"value: 40", b"value: 41", Verdict.EQUAL)],
)
async def test_what_was_decided_with_other_features_cannot_be_told(old: bytes, new: bytes, verdict: Verdict) -> None:
    """Nothing differs where nothing was compared, which is not the same as equal."""
    engine = SmallEngine()
    assert (await engine.decide()).decision_id
    await engine.store.save_config(engine.catalogue.version, CONFIG)
    findings = await replay(catalogue_of(CONFIG.replace(old, new, 1)), engine.store, now_ms=START_MS)
    assert (findings.verdict, findings.different, len(findings.gaps)) == (verdict, 0, verdict is Verdict.CANNOT_TELL)


def test_a_caveat_alone_does_not_keep_from_telling_that_all_is_equal() -> None:
    assert Findings(caveats=["the log is full"]).verdict is Verdict.EQUAL
    assert Findings(caveats=["the log is full"], different=1).verdict is Verdict.CANNOT_TELL
    assert Findings(gaps=["not all was read"]).verdict is Verdict.CANNOT_TELL


async def test_an_estimate_that_is_no_probability_is_not_called_one() -> None:
    engine = Told()
    await engine.tell(1, "loan", "accepted")
    summary = (await engine.explain(engine.decision_id)).summary
    assert "loan, share of its value estimated at" in summary


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rewards": {"joy": 1.0}}, r"rewards\['joy'\]: no such objective .* there are revenue, satisfaction"),
        ({"rewards": {"revenue": float("nan")}}, r"rewards\[revenue\]: nan, expected a finite number"),
        ({"rewards": {"revenue": 1e9}}, "1e.09 by the weights .* from -50 to 200, expected -250 to 250"),
        ({"value": 1e9}, "1e.09 by the weights"),
        ({"stage": "not_presented", "value": 1.0}, "NOT_PRESENTED teaches nothing, expected neither value nor rewards"),
        ({"offer_id": "loan", "rewards": {"revenue": 1.0}}, "offer 'loan' does not learn from rewards, expected none"),
    ],
)
async def test_a_reward_that_cannot_be_one_is_refused_with_what_was_expected(
    fields: dict[str, object], told: str
) -> None:
    engine = Told()
    decision = await engine.decide("ann")
    asked = {"decision_id": decision.decision_id, "offer_id": "fund", "stage": "accepted"} | fields
    with pytest.raises(InvalidArgument, match=told):
        await engine.report(**asked)  # type: ignore[arg-type]
    await engine.report(decision.decision_id, "fund", "accepted", rewards={"revenue": 1.0})


async def test_what_comes_in_the_wrong_order_is_refused_with_what_was_expected() -> None:
    engine = Told()
    await engine.tell(1, "fund", "accepted", "a", rewards={"revenue": 25})
    await engine.tell(1, "fund", "fulfilled", "f")
    with pytest.raises(NotAllowed, match="FULFILLED, told later, cannot follow DECLINED: correct the later outcome"):
        await engine.tell(0, "fund", "declined", corrects="a")
    with pytest.raises(NotAllowed, match=r"corrects: 'x': .* no outcome of that id is known of it"):
        await engine.tell(0, "fund", "fulfilled", corrects="x")
    with pytest.raises(NotAllowed, match="CANCELLED, or of an offer with rewards STAGE_FULFILLED again with"):
        await engine.tell(0, "fund", "fulfilled")
    assert await fund(engine) == (1, 30)


@pytest.mark.parametrize(("weight", "best"), [(0, "push"), (20, "advice")])
async def test_the_weights_of_the_objectives_decide_what_is_offered(weight: int, best: str) -> None:
    """The push earns 12 and annoys, the advice earns 5 and pleases: at 20 a point the advice is better."""
    earned = {"push": {"revenue": 12.0, "satisfaction": -0.3}, "advice": {"revenue": 5.0, "satisfaction": 0.2}}
    offers = b"".join(
        b"  - {id: %s, value: 20, rewards: [-20, 40], treatments: [{text: Now}]}\n" % offer.encode() for offer in earned
    )
    text = OFFERS[: OFFERS.index(b"offers:")].replace(b"20}", b"%d}" % weight) + b"offers:\n" + offers
    engine = SmallEngine(text + b"exploration: {method: greedy}\n")
    for number in range(40):
        decision = await engine.decide(f"customer-{number}")
        for offer, rewards in earned.items():
            await engine.report(decision.decision_id, offer, "accepted", rewards=rewards)
    await engine.learn()
    answer = await engine.decide("somebody-else")
    assert answer.offers[0].offer_id == best
    expected = {offer: rewards["revenue"] + weight * rewards["satisfaction"] for offer, rewards in earned.items()}
    # The prior, 10 lessons that are worth what all bring, pulls the two together a little.
    assert {offer.offer_id: offer.score for offer in answer.offers} == pytest.approx(expected, abs=1.0)


async def test_what_loses_money_is_expected_to() -> None:
    """Rewards of −6 of a value of 20: P × value is −6, and saying nothing, worth 0, is better."""
    text = OFFERS[: OFFERS.index(b"offers:")].replace(b"silence: false", b"silence: true")
    text += b"offers:\n  - {id: trap, value: 20, rewards: [-20, 40], treatments: [{text: Now}]}\n"
    engine = SmallEngine(text + b"exploration: {method: greedy}\n")
    for number in range(20):
        decision = await engine.decide(f"customer-{number}")
        await engine.report(decision.decision_id, "trap", "accepted", rewards={"revenue": -6.0})
    await engine.learn()
    answer = await engine.decide("somebody-else")
    assert not answer.offers
    assert answer.nothing_reason.code == "silence"
