"""Rules of three layers, for one offer and for many: what they see, and what "why not" says of them."""

from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.errors import ConfigError, InvalidArgument
from engine.geo import Nearest, distance_km
from engine.holds import Hold, Holds, Situation
from engine.ledger import DecisionEntry, Glance, Ledger, LedgerError, OfferEntry, Trial, scan
from engine.ledgervalues import NEVER_DAYS, ledger_values
from engine.lifecycle import Stage
from features import Offset
from opportune.v1 import decisions_pb2
from tests.small_engine import DAY_MS, START_MS, SmallEngine

CONFIG = """
opportune: 1
name: bank
timezone: Europe/Prague
channels: [{id: web, placements: [hero, footer]}, {id: branch, placements: [desk]}]
context:
  - {name: age, type: number}
  - {name: birthday, type: number}
  - {name: may_locate, type: flag}
  - {name: latitude, type: number, consent: may_locate}
  - {name: longitude, type: number, consent: may_locate}
location: {latitude: latitude, longitude: longitude}
places:
  - {id: centre, kind: office, latitude: 50.0755, longitude: 14.4378}
  - {id: brno, kind: office, latitude: 49.1951, longitude: 16.6068}
events: [{type: visit}, {type: purchase}]
features: [{name: visits_7d, event: visit, function: count, window: 7d}]
groups: [{id: all, applicability: [{name: not at night, when: hour >= 7}]}]
rules:
  - {name: of age, when: age >= 18.0, kinds: [sale]}
  - {name: no credit on the web, when: offer.category != "credit", channels: [web], layer: suitability}
  - {name: nothing dear in the footer, when: offer.value < 50.0, placements: [footer], groups: [all]}
offers:
  - {id: card, group: all, value: 40, treatments: [{text: A card}]}
  - id: loan
    group: all
    category: credit
    value: 100
    channels: [branch, web]
    suitability: [{name: can pay it back, when: age < 70.0}]
    treatments: [{text: A loan}]
  - {id: help, kind: service, value: 30, channels: [branch], treatments: [{text: Help}]}
"""
NOON = int(datetime(2026, 5, 20, 12, tzinfo=UTC).timestamp() * 1e3)
HERE = {"may_locate": True, "latitude": 50.08, "longitude": 14.44}


def with_offer(settings: str) -> str:
    """The configuration with one more offer, of this."""
    return CONFIG + f"  - {{id: extra, kind: service, value: 5, treatments: [{{text: Extra}}], {settings}}}\n"


def engine_of(text: str = CONFIG, now_ms: int = NOON) -> SmallEngine:
    engine = SmallEngine(text.encode())
    engine.now_ms = now_ms
    return engine


async def unmet(
    engine: SmallEngine, offer: str, channel: str = "branch", customer: str = "ann", **facts: object
) -> list[decisions_pb2.Unmet]:
    placement = str(facts.pop("placement", ""))
    answer = await engine.decide(customer, channel, context=facts, placement=placement)
    told = {candidate.offer_id: candidate for candidate in (await engine.explain(answer.decision_id)).candidates}
    assert told[offer].eligible == (not told[offer].unmet_rules)
    return list(told[offer].unmet)


async def test_why_not_names_layer_and_rule() -> None:
    engine = engine_of(now_ms=NOON - 8 * 3_600_000)  # six in the morning in Prague
    found = await unmet(engine, "loan", "web", age=75)
    assert [(one.layer, one.name, one.expression, one.failed) for one in found] == [
        ("applicability", "not at night", "hour >= 7", False),
        ("suitability", "can pay it back", "age < 70.0", False),
        ("suitability", "no credit on the web", 'offer.category != "credit"', False),
    ]
    assert found[1].text == "can pay it back (age < 70.0) did not hold"
    answer = await engine.decide("ann", "web", context={"age": 75})
    [text] = [c.text for c in (await engine.explain(answer.decision_id)).candidates if c.offer_id == "loan"]
    assert "not eligible, because applicability: not at night (hour >= 7) did not hold; suitability: can pay" in text
    [missing] = await unmet(engine_of(), "card")
    assert (missing.layer, missing.name, missing.failed) == ("eligibility", "of age", True)
    [channel] = await unmet(engine, "help", "web")
    assert (channel.layer, channel.name, channel.text) == ("channel", "", "it is not offered in channel web")


async def test_rules_for_many_count_where_they_say() -> None:
    engine = engine_of()
    assert await unmet(engine, "help") == [], "of age is for sales"
    assert await unmet(engine, "loan", "branch", age=30) == [], "no credit is for the web"
    assert [one.name for one in await unmet(engine, "loan", "web", age=30)] == ["no credit on the web"]
    found = await unmet(engine, "loan", "web", age=30, placement="footer")
    assert [one.name for one in found] == ["nothing dear in the footer", "no credit on the web"]
    assert await unmet(engine, "card", "web", age=30, placement="footer") == []


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("channel == 'branch' && placement == 'desk'", True),
        ("request.channel in ['web']", False),
        ("hour == 14 && weekday == 2 && month == 5 && day == 20", True),  # in Prague, on a Wednesday
        ("today == 20593.0", True),
        ("offer.id == 'extra' && offer.kind == 'service' && offer.value == 5.0", True),
        ("offer.group == '' && !('all' in offer.groups)", True),
        ("offer.contact_cost + 1.0 == 1.0 && offer.explore", True),
        ("ledger.open_offers == 0 && ledger.contacts_7d == 0.0", True),
        ("ledger.days_since_declined > 90.0 && offer.days_since_accepted > 90.0 && !offer.open", True),
        ("near('centre', 2.0)", True),
        ("near('office', 2)", True),
        ("near('brno', 100.0)", False),
        ("near('brno', 200.0)", True),
        ("distance_km(latitude, longitude, 50.08, 14.44) < 0.1", True),
        ("channel.startsWith('br')", True),
        ("'hour' == 'ho' + 'ur'", True),
    ],
)
async def test_what_rules_see(rule: str, holds: bool) -> None:
    engine = engine_of(with_offer(f'eligibility: ["{rule}"]'))
    found = await unmet(engine, "extra", placement="desk", **HERE)
    assert [one.expression for one in found] == ([] if holds else [rule])


async def test_a_fact_keeps_its_name() -> None:
    """A configuration that calls a fact `month` means its own."""
    text = with_offer("eligibility: [month == 7.0 && request.month == 5.0]").replace(
        "context:\n", "context:\n  - {name: month, type: number}\n"
    )
    assert await unmet(engine_of(text), "extra", month=7) == []


async def test_where_a_customer_is_counts_with_consent_alone_and_is_not_kept_without() -> None:
    engine = engine_of(with_offer("eligibility: [{name: close by, when: \"near('centre', 2.0)\"}]"))
    assert await unmet(engine, "extra", **HERE) == []
    for facts in ({**HERE, "may_locate": False}, {"latitude": 50.08, "longitude": 14.44}):
        [one] = await unmet(engine, "extra", customer=f"c{len(facts)}", **facts)
        assert one.text == (
            "close by (near('centre', 2.0)) asks for what needs the customer's consent, and may_locate was not given"
        )
        answer = await engine.decide(f"c{len(facts)}", context=facts)
        kept = (await engine.explain(answer.decision_id)).context
        assert "latitude" not in kept and "longitude" not in kept
    [nowhere] = await unmet(engine, "extra", customer="d", may_locate=True)
    assert nowhere.text.endswith("could not be evaluated")


async def test_what_there_was_with_the_customer() -> None:
    rules = [
        "ledger.contacts_7d < 2.0", "ledger.days_since_declined > 10.0", "!offer.open",
        "offer.days_since_declined > 10.0",
    ]  # fmt: skip
    text = "\n".join(
        [CONFIG, *(f'  - {{id: r{n}, kind: service, value: 90, treatments: [{{text: x}}], eligibility: ["{rule}"]}}'
                   for n, rule in enumerate(rules))]
    )  # fmt: skip
    engine = engine_of(text)
    first = await engine.decide(limit=10)
    assert {offer.offer_id for offer in first.offers} >= {"r0", "r1", "r2", "r3"}
    second = await engine.decide(limit=10)
    assert "r2" not in {offer.offer_id for offer in second.offers}, "it is open now"
    await engine.report(second.decision_id, "r3", "declined")
    engine.now_ms += DAY_MS
    third = await engine.decide(limit=10)
    named = {offer.offer_id for offer in third.offers}
    assert not named & {"r0", "r1", "r2", "r3"}, "two contacts, a refusal yesterday, and still open"
    engine.now_ms += 20 * DAY_MS
    last = await engine.decide(limit=10)
    assert {offer.offer_id for offer in last.offers} >= {"r0", "r1", "r2", "r3"}


def test_a_ledger_that_cannot_be_read_tells_nothing() -> None:
    told = ledger_values(Glance(0, None, ()), START_MS, b"no ledger")
    assert (told.values["contacts_30d"], told.offers) == (0.0, {})
    assert ledger_values(Glance(0, None, ()), 0, Ledger().pack()).values.get("days_since_contact", NEVER_DAYS) > 1e5


# --- triggers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "day", "due"),
    [
        ("before: 14d, every: year", 19800603, True),
        ("before: 14d, every: year", 19800604, False),
        ("before: 14d, every: year", 19800519, False),
        ("after: 1d, every: year", 19800519, True),
        ("before: 14d, after: 3d, every: year", 19800518, True),
        ("before: 14d", 20260601, True),
        ("before: 14d", 20250601, False),
        ("before: 2d, every: month", 20200122, True),
        ("before: 2d, every: month", 20200123, False),
        ("before: 5d, written: days", 20595, True),
        ("before: 5d, written: ms", NOON + 3 * DAY_MS, True),
        ("before: 5d, written: ms", NOON + 6 * DAY_MS, False),
        ("before: 14d, every: year", 19801399, False),
        ("before: 14d, every: year", None, False),
    ],
)
async def test_a_date_makes_an_offer_come_up(trigger: str, day: int | None, due: bool) -> None:
    engine = engine_of(with_offer(f"triggers: [{{date: birthday, {trigger}}}]"))
    facts = {} if day is None else {"birthday": day}
    found = await unmet(engine, "extra", **facts)
    assert (not found) == due
    assert all((one.layer, one.failed) == ("trigger", False) for one in found)


async def test_an_event_or_that_there_was_none_makes_an_offer_come_up() -> None:
    text = with_offer("triggers: [{event: purchase, within: 7d}, {name: asleep, event: visit, dormant: 90d}]")
    engine = engine_of(text)
    [never] = await unmet(engine, "extra")
    assert (never.layer, never.name, never.expression) == (
        "trigger", "purchase within 7 days or asleep", "purchase within 7 days or asleep",
    )  # fmt: skip
    assert never.text == "purchase within 7 days or asleep did not hold"
    await engine.publish("visit")
    await engine.publish("purchase")
    await engine.fold()
    assert await unmet(engine, "extra") == []
    engine.now_ms += 8 * DAY_MS
    assert len(await unmet(engine, "extra")) == 1
    engine.now_ms += 90 * DAY_MS
    assert await unmet(engine, "extra") == [], "no visit for long"


def test_a_trigger_takes_a_feature_that_is_there() -> None:
    text = with_offer("triggers: [{event: visit, within: 7d}]")
    added = parse(text.encode()).features
    assert [feature.name for feature in added] == ["visits_7d", "trigger_since_visit"]
    own = text.replace("features: [", "features: [{name: since, event: visit, function: recency}, ")
    assert [feature.name for feature in parse(own.encode()).features] == ["since", "visits_7d"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        data = text.encode()
        Catalogue.compile(parse(data, "bank.yaml"), version_of(data), data, "bank.yaml")
    [only] = str(refusal.value).splitlines()
    return only


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("eligibility: [aeg > 1.0]", "eligibility.0: no feature or fact is called 'aeg'; the nearest is age; there"),
        ("suitability: [{when: ledger.contact_7d < 1.0}]", "suitability.0: ledger.contact_7d: there is none; the ne"),
        ("applicability: [offer.valu > 1.0]", "applicability.0: offer.valu: there is none; the nearest is value; ther"),
        ("eligibility: [request.minute > 1.0]", "request.minute: there is none; there are channel, day, hour, month"),
        ("eligibility: [offer.value]", "expected a rule that is true or false"),
        ("eligibility: [channel > 1.0]", "compares or combines values of different types"),
        ("eligibility: ['age > 1.0 && channel > 1.0']", "compares or combines values of different types"),
        ("eligibility: [\"near('moon', 2.0)\"]", "no place or kind of places is called 'moon'"),
        ("eligibility: ['near(age, 2.0)']", "near: expected near('place or kind of places', kilometres), both"),
        ("eligibility: [{name: x}]", "offers[3].eligibility[0].when: Field required"),
        ("eligibility: [{when: age > 1.0, layer: x}]", "offers[3].eligibility[0].layer: not a setting"),
        ("triggers: [{date: birth, every: year}]", "triggers[0].date: no feature or fact is called 'birth'"),
        ("triggers: [{date: may_locate}]", "triggers[0].date: 'may_locate' is no number"),
        ("triggers: [{date: birthday, before: 1h}]", "triggers[0]: before, after: expected whole days"),
        ("triggers: [{date: birthday, before: 400d, every: year}]", "together a whole year"),
        ("triggers: [{event: visit}]", "triggers[0]: event: expected within or dormant"),
        ("triggers: [{event: visit, within: 7d, every: year}]", "event: before, after, every and written are for dat"),
        ("triggers: [{within: 7d}]", "expected date, or event with within or dormant"),
        ("triggers: [{event: visits, within: 7d}]", "offers[3].triggers[0].event: no event type 'visits'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rule_is_told(settings: str, told: str) -> None:
    text = with_offer(settings)
    found = problem(text)
    assert told in found
    assert text.splitlines()[int(found.split(":")[1]) - 1].lstrip().startswith("- {id: extra")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("channels: [web], layer", "channels: [wab], layer", "rules[1].channels[0]: no channel 'wab'; the nearest is"),
        ("kinds: [sale]", "categories: [credits]", "rules[0].categories[0]: no offer of category 'credits'; the near"),
        ("groups: [all]}", "groups: [al]}", "rules[2].groups[0]: no group 'al'; the nearest is all"),
        ("placements: [footer], g", "placements: [foot], g", "rules[2].placements[0]: no placement 'foot'"),
        ("name: of age", "name: no credit on the web", "rules[1].name: rule 'no credit on the web' is already there"),
        ("when: age >= 18.0", "when: eag >= 18.0", "rules.0.when: no feature or fact is called 'eag'"),
        (", consent: may_locate}\nlocation", "}\nlocation", "says where the customer is: expected consent"),
        ("consent: may_locate}\nlocation", "consent: age}\nlocation", "context[4].consent: context has no flag 'age'"),
        ("location: {latitude: latitude", "location: {latitude: lat", "location.latitude: context has no number fact"),
        ("{id: brno,", "{id: centre,", "places[1].id: place 'centre' is already there as places[0]"),
        ("{id: brno,", "{id: office,", "places[1].id: 'office' is a kind of places, too"),
        ("latitude: 49.1951", "latitude: 94", "places[1].latitude: expected less than or equal to 90"),
        ("exploration", "", ""),
    ],
)  # fmt: skip
def test_a_mistake_beside_rules_is_told(old: str, new: str, told: str) -> None:
    text = CONFIG.replace(old, new, 1) if told else CONFIG + "exploration: {never: [offer.value > 1.0]}\n"
    assert (told or "exploration.never.0: offer.value: only rules of offers are about one") in problem(text)


async def test_facts_are_still_checked() -> None:
    with pytest.raises(InvalidArgument, match="latitude"):
        await engine_of().decide(context={"latitude": "north"})


def test_a_ledger_is_scanned_as_it_is_unpacked() -> None:
    rows = [(7, Stage.DECLINED, 1), (8, Stage.SERVED, 2), (9, Stage.ACCEPTED, 3)]
    offers = tuple(OfferEntry(key, stage, rank, NOON + DAY_MS, NOON - DAY_MS, (5, 6)) for key, stage, rank in rows)
    entries = [DecisionEntry(Offset(n + 1, 0), 3, NOON - 10 * n * DAY_MS, offers) for n in (4, 1)]
    entries.append(DecisionEntry(Offset(9, 9), 0, NOON - 2 * DAY_MS, ()))
    data = Ledger(1, 2, tuple(entries), (Trial(5, 6),)).pack()
    assert scan(data) == [
        (offer.key, offer.stage, offer.rank, entry.time_ms, offer.changed_ms)
        for entry in Ledger.unpack(data).decisions
        for offer in entry.offers
    ]
    told = ledger_values(Glance(0, None, ()), NOON, data)
    assert told.values == {
        "open_offers": 0.0, "contacts_7d": 0.0, "contacts_30d": 1.0, "days_since_contact": 10.0,
        "days_since_declined": 1.0, "days_since_accepted": 1.0,
    }  # fmt: skip
    assert told.offers[8] == {"days_since_offered": 10.0}
    assert told.offers[7] == {"days_since_offered": 10.0, "days_since_declined": 1.0}
    with pytest.raises(LedgerError):
        scan(data[:-30])


# --- what keeps offers back although their rules hold -----------------------------------------------------------------


class Cap:
    """A limit on one offer."""

    names = ("card once a week",)
    layer = "contact_policy"
    derived = False

    def holds(self, situation: Situation) -> list[list[tuple[int, int]]]:
        return [[(0, 0)] for _ in situation.customers]

    def covers(self, limit: int, scope: int) -> NDArray[np.bool_]:
        return np.array([True, False, False])


class Control(Cap):
    """A limit of a layer of its own, on everything."""

    names = ("control group",)
    layer = "control_group"

    def covers(self, limit: int, scope: int) -> NDArray[np.bool_]:
        return np.array([True, True, True])


async def test_a_limit_that_kept_an_offer_back_is_a_layer_of_its_own() -> None:
    engine = engine_of()
    engine.catalogue.__dict__["holds"] = Holds([Cap()])
    [one] = await unmet(engine, "card", age=30)
    assert (one.layer, one.name, one.expression, one.text) == (
        "contact_policy", "card once a week", "", "card once a week kept it back",
    )  # fmt: skip
    assert await unmet(engine, "loan", age=30) == []
    engine.catalogue.__dict__["holds"] = holds = Holds([Cap(), Control()])
    assert [holds.layer(Hold(limit, 0)) for limit in (0, 1)] == ["contact_policy", "control_group"]
    assert [holds.covers(Hold(limit, 0)).sum() for limit in (0, 1)] == [1, 3]
    for limit in (-1, 2):
        with pytest.raises(LookupError, match=f"limit {limit}: there are 2"):
            holds.covers(Hold(limit, 0))
    answer = await engine.decide("bea", "branch", context={"age": 30}, request_id="once")
    again = await engine.decide("bea", "branch", context={"age": 30}, request_id="once")
    assert answer.nothing_reason.code == again.nothing_reason.code == "control_group"
    found = await unmet(engine, "card", customer="bea", age=30)
    assert [one.layer for one in found] == ["contact_policy", "control_group"]
    story = await engine.explain(answer.decision_id)
    [card] = [candidate for candidate in story.candidates if candidate.offer_id == "card"]
    assert card.eligible and list(card.held_by) == ["card once a week", "control group"]
    assert card.reasons[0].code == "control_group" and "kept back by control group" in card.text


def test_the_nearest_of_many_places_is_found_as_one_by_one() -> None:
    places = [(50.0755, 14.4378), (49.1951, 16.6068), (-33.9, 151.2), (89.9, 0.0), (0.0, -179.9)]
    nearest = Nearest(places)
    for here in [*places, (0.0, 179.9), (12.3, 45.6), (-90.0, 0.0)]:
        found = min(distance_km(*here, *place) for place in places)
        assert nearest.km(*here) == pytest.approx(found, abs=1e-6)
