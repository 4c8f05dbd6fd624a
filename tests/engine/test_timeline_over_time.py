"""What becomes of a timeline: damage, other configurations, types of events that are no longer marked."""

import pytest

from engine.errors import Unavailable
from tests.small_engine import CONFIG, SmallEngine

MARKED = CONFIG.replace(b"  - type: complaint\n", b"  - {type: complaint, timeline: true}\n")


async def test_a_damaged_timeline_is_told_and_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    engine = SmallEngine(MARKED)
    await engine.publish("complaint")
    await engine.fold()
    kept = vars(engine.store)["_timelines"]
    kept.put("ann", kept.get("ann")[:-1])
    with pytest.raises(Unavailable, match="the state of customer 'ann' cannot be read: timeline of"):
        await engine.customer()
    assert (await engine.decide()).decision_id, "decisions do not look at it"
    await engine.publish("complaint")
    await engine.fold()
    assert "the timeline of customer 'ann' is damaged and begins anew" in caplog.text
    customer = await engine.customer()
    assert len([entry for entry in customer.timeline if entry.type]) == 1
    assert customer.events == 2, "the features are as they were"


async def test_the_timeline_of_a_type_that_is_no_longer_marked_stays_as_it_is() -> None:
    before = SmallEngine(MARKED)
    await before.publish("complaint")
    await before.fold()
    after = SmallEngine(CONFIG, before.store)
    await after.publish("complaint", event_id="later")
    await after.fold()
    customer = await after.customer()
    assert [entry.text for entry in customer.timeline] == ["complaint"]
    assert (customer.events, len(customer.cases)) == (2, 0)


async def test_what_is_not_marked_costs_nothing() -> None:
    engine = SmallEngine()
    await engine.publish("complaint")
    await engine.fold()
    assert await engine.store.read_timelines(["ann"]) == [None]
    assert list((await engine.customer()).timeline) == []


async def test_a_decision_of_an_older_configuration_is_shown_where_it_was_made() -> None:
    """The channel of a record is a number of its own configuration: in today's it may be another channel."""
    before = SmallEngine()
    await before.store.save_config(before.catalogue.version, CONFIG)
    await before.decide(channel="web", placement="footer")
    swapped = CONFIG.replace(b"  - {id: web, placements: [hero, footer]}\n", b"").replace(
        b"  - {id: branch, placements: [desk]}\n",
        b"  - {id: web, placements: [footer, hero]}\n  - {id: branch, placements: [desk]}\n",
    )
    after = SmallEngine(swapped, before.store)
    await after.decide(channel="web", placement="hero")
    places = {(entry.channel, entry.placement) for entry in (await after.customer()).timeline}
    assert places == {("web", "footer"), ("web", "hero")}


async def test_a_decision_of_a_configuration_that_was_not_kept_is_shown_without_a_channel() -> None:
    before = SmallEngine()
    await before.decide(channel="web")
    after = SmallEngine(CONFIG + b"# another version\n", before.store)
    assert {entry.channel for entry in (await after.customer()).timeline} == {""}
