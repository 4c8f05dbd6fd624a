"""Events, decisions and outcomes as one list: what stands in it, and pages of it while it grows."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config_schema import OnTimeline
from engine.ledger import DecisionEntry, Ledger, OfferEntry
from engine.lifecycle import Stage
from engine.record import decision_id
from engine.timeline import Entry, Kind, Timeline
from engine.timelineview import Item, Wanted, of_decisions, of_events, page
from features import Offset

ALL = list(Kind)
CHANNELS = ["", "web", "branch"]


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    times = draw(st.lists(st.integers(0, 30), max_size=60))
    dice = Random(draw(st.integers(0, 2**32)))
    return [Item(time_ms, number, dice.choice(ALL), dice.choice(CHANNELS)) for number, time_ms in enumerate(times)]


@st.composite
def wishes(draw: st.DrawFn) -> Wanted:
    return Wanted(
        frozenset(draw(st.lists(st.sampled_from(ALL), max_size=3))),
        frozenset(draw(st.lists(st.sampled_from(CHANNELS[1:]), max_size=2))),
        draw(st.integers(0, 30)),
        draw(st.integers(0, 31)),
        draw(st.integers(1, 20)),
    )


def reference(found: list[Item], wanted: Wanted) -> list[Item]:
    """Everything that is wanted, newest first, a filter a line."""
    left = sorted(found, key=lambda item: (item.time_ms, item.id), reverse=True)
    left = [item for item in left if not wanted.kinds or item.kind in wanted.kinds]
    left = [item for item in left if not wanted.channels or item.channel in wanted.channels]
    left = [item for item in left if item.time_ms >= wanted.since_ms]
    return [item for item in left if wanted.until_ms == 0 or item.time_ms < wanted.until_ms]


def pages(found: list[Item], wanted: Wanted, grow: list[list[Item]]) -> list[Item]:
    """All pages, one after the other; before each page but the first some more items came."""
    seen: list[Item] = []
    now = list(found)
    while True:
        shown, place = page(now, wanted)
        assert len(shown) <= wanted.count
        seen += shown
        if place is None:
            return seen
        assert len(shown) == wanted.count
        assert place == shown[-1].place
        wanted = Wanted(wanted.kinds, wanted.channels, wanted.since_ms, wanted.until_ms, wanted.count, place)
        now += grow.pop() if grow else []


@given(items(), wishes())
@settings(max_examples=200, deadline=None)
def test_the_pages_are_the_list(found: list[Item], wanted: Wanted) -> None:
    assert pages(found, wanted, []) == reference(found, wanted)


@given(items(), items(), wishes())
@settings(max_examples=200, deadline=None)
def test_what_comes_meanwhile_repeats_and_hides_nothing(found: list[Item], late: list[Item], wanted: Wanted) -> None:
    """Whatever was there at the first page is shown once. What came later is shown if its place was still ahead."""
    fresh = [Item(item.time_ms, item.id + 1_000, item.kind, item.channel) for item in late]
    seen = pages(found, wanted, [fresh[at : at + 5] for at in range(0, len(fresh), 5)])
    assert [item for item in seen if item.id < 1_000] == reference(found, wanted)
    assert [item.place for item in seen] == sorted({item.place for item in seen}, reverse=True)


# --- what an entry says ---------------------------------------------------------------------------------------------


def said(settings: OnTimeline, **attributes: float | str | bool) -> Item:
    [item], _ = of_events(Timeline((Entry(5, 1, "visit", attributes),)), {"visit": settings})
    return item


def test_a_text_is_filled_with_what_the_event_has() -> None:
    settings = OnTimeline(kind="contact", channel="{where}", text="{what} for {minutes} min, {then}")
    item = said(settings, where="web", what="{minutes}", minutes=3.0)
    assert (item.kind, item.channel) == (Kind.CONTACT, "web")
    assert item.text == "{minutes} for 3 min, ", "what a customer wrote is never a template"
    assert (said(settings).text, said(settings).channel) == (" for  min, ", "")


def test_without_a_text_it_tells_all_that_is_known() -> None:
    assert said(OnTimeline(), seconds=1.5, new=False).text == "visit: seconds 1.5, new false"
    assert said(OnTimeline()).text == "visit"


def test_a_type_that_left_the_configuration_is_still_told() -> None:
    [item], _ = of_events(Timeline((Entry(5, 1, "fax", {"pages": 2.0}),)), {})
    assert (item.kind, item.type, item.text) == (Kind.USE, "fax", "fax: pages 2")


def test_decisions_and_what_became_of_their_offers() -> None:
    """Nothing is told of an offer of which nothing was heard; one whose window has passed is expired."""
    stages = [(Stage.SERVED, 100), (Stage.PRESENTED, 200), (Stage.DECLINED, 300), (Stage.NOT_PRESENTED, 150)]
    offers = tuple(OfferEntry(at, stage, at, 1_000, changed_ms) for at, (stage, changed_ms) in enumerate(stages, 1))
    made, silent = DecisionEntry(Offset(9, 0), 0, 100, offers), DecisionEntry(Offset(9, 1), 0, 120, ())
    ledger = Ledger(decisions=(made, silent))
    places = {decision_id(3, made.position): ("web", "hero")}

    def told(now_ms: int) -> list[tuple[int, str, str]]:
        found = of_decisions(ledger, 3, places, lambda key: f"offer-{key}", now_ms)
        return [(item.time_ms, item.channel, item.text) for item in sorted(found, key=lambda item: item.place)]

    begun = (100, "web", "offered offer-1, offer-2, offer-3, offer-4")
    silence, hidden = (120, "", "nothing offered"), (150, "web", "offer-4: not presented")
    declined = (300, "web", "offer-3: declined")
    assert told(999) == [begun, silence, hidden, (200, "web", "offer-2: presented"), declined]
    assert sorted(told(1_000)[-2:]) == [(1_000, "web", "offer-1: expired"), (1_000, "web", "offer-2: expired")]
    assert told(1_000)[:4] == [begun, silence, hidden, declined]


def test_within_a_millisecond_the_cause_comes_first() -> None:
    offer = OfferEntry(1, Stage.ACCEPTED, 1, window_end_ms=1_000, changed_ms=5)
    ledger = Ledger(decisions=(DecisionEntry(Offset(9, 0), 0, 5, (offer,)),))
    events, _ = of_events(Timeline((Entry(5, 2**48 - 1, "visit", {}),)), {"visit": OnTimeline()})
    shown, _ = page([*events, *of_decisions(ledger, 0, {}, str, 6)], Wanted(count=9))
    assert [item.kind for item in shown] == [Kind.OUTCOME, Kind.DECISION, Kind.USE]
