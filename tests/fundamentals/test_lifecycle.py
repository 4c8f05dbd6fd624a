"""What becomes of an offer and what each turn of it teaches."""

import pytest

from engine.errors import InvalidArgument, NotAllowed
from engine.lifecycle import NEXT, REPORTABLE, TEACHES, Stage
from tests.small_engine import DAY_MS, SmallEngine

ONE_OFFER = b"""
opportune: 1
name: one-offer
silence: false
channels: [{id: branch}]
offers:
  - {id: card, value: 40, window: 7d, treatments: [{text: A card}]}
"""
TICK = "time passes"


async def learnt_after(*turns: tuple[int, str]) -> bytes:
    """Bytes of all sums after ann got the card and these (days later, stage) came in, each learnt at once."""
    engine = SmallEngine(ONE_OFFER)
    decision = await engine.decide("ann")
    for days, stage in turns:
        engine.now_ms += days * DAY_MS
        if stage == TICK:
            # Only the log moves time. Another customer of the same partition comes by and is shown nothing.
            other = await engine.decide("bob-5")
            assert other.decision_id.split("-")[0] == decision.decision_id.split("-")[0]
            await engine.report(other.decision_id, "card", "not_presented")
        else:
            await engine.report(decision.decision_id, "card", stage)
        await engine.learn()
    return await engine.statistics()


async def test_a_late_yes_reverses_the_provisional_no_exactly() -> None:
    """The window closes: a no. Ten days on the yes comes: the sums are those of a world where it came at once."""
    in_between = await learnt_after((1, "presented"), (9, TICK))
    late = await learnt_after((1, "presented"), (9, TICK), (1, "accepted"))
    hindsight = await learnt_after((1, "presented"), (0, "accepted"), (9, TICK))
    assert in_between != hindsight
    assert late == hindsight


async def test_a_closed_window_is_a_no() -> None:
    """Nobody answers within the window: the customer is taken to have said no."""
    assert await learnt_after((8, TICK)) == await learnt_after((1, "declined"), (7, TICK))


async def test_what_was_never_shown_teaches_nothing() -> None:
    """An offer that the agent did not get to say leaves no trace in the sums, even after its window had closed."""
    nothing = await learnt_after()
    assert await learnt_after((1, "not_presented")) == nothing
    assert await learnt_after((8, TICK)) != nothing
    assert await learnt_after((8, TICK), (1, "not_presented")) == nothing


async def test_an_ignored_offer_may_still_be_accepted() -> None:
    """Ignored is a no for now; the yes that follows replaces it."""
    assert await learnt_after((1, "ignored"), (1, "accepted")) == await learnt_after((2, "accepted"))


async def test_a_cancelled_order_takes_its_yes_back() -> None:
    """Accepted, then cancelled: in the end it was a no."""
    assert await learnt_after((1, "accepted"), (1, "cancelled")) == await learnt_after((1, "declined"))


@pytest.mark.parametrize("stage", sorted(REPORTABLE - NEXT[Stage.DECLINED]))
async def test_a_no_is_final(stage: Stage) -> None:
    """After a no there is no other move, and the refusal says where the offer stands."""
    engine = SmallEngine(ONE_OFFER)
    decision = await engine.decide("ann")
    await engine.report(decision.decision_id, "card", "declined")
    with pytest.raises(NotAllowed, match=f"is DECLINED, expected nothing more, got {stage.name}"):
        await engine.report(decision.decision_id, "card", stage.name)


@pytest.mark.parametrize("stage", ["served", "expired"])
async def test_what_the_engine_says_itself_is_not_reported(stage: str) -> None:
    """Serving and expiring are the engine's own doing."""
    engine = SmallEngine(ONE_OFFER)
    decision = await engine.decide("ann")
    with pytest.raises(InvalidArgument, match=f"stage: STAGE_{stage.upper()} is the engine's own"):
        await engine.report(decision.decision_id, "card", stage)


def test_every_way_through_the_life_of_an_offer_ends() -> None:
    """No stage can be reached twice: whatever is reported, the moves of one offer are few."""

    def longest(stage: Stage, seen: tuple[Stage, ...] = ()) -> int:
        assert stage not in seen, f"{stage.name} is reached again through {[was.name for was in seen]}"
        return 1 + max((longest(following, (*seen, stage)) for following in NEXT[stage]), default=0)

    assert longest(Stage.SERVED) == 8


def test_the_last_word_decides_what_is_taught() -> None:
    """Yes teaches yes, every other ending of an offer that was shown teaches no, and one never shown nothing."""
    ends = {stage: TEACHES[stage] for stage in Stage if not NEXT[stage]}
    no, nothing = 0, None
    assert ends == {Stage.DECLINED: no, Stage.CANCELLED: no, Stage.NOT_PRESENTED: nothing, Stage.WITHDRAWN: nothing}
    assert TEACHES[Stage.ACCEPTED] == TEACHES[Stage.FULFILLED] == 100
