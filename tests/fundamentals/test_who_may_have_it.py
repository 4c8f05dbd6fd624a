"""Rules stand in layers, for one offer or for many, and whoever asks why not is told which of them it was."""

from tests.small_engine import CONFIG, SmallEngine

GROUPED = CONFIG.replace(
    b"offers:\n",
    b"""
rules:
  - {name: not while they complain, when: complaints_90d == 0.0, kinds: [sale], layer: applicability}
groups:
  - {id: lending, contact_cost: 1, suitability: [{name: has the time for it, when: minutes >= 10.0}]}
offers:
  - {id: mortgage, group: lending, value: 500, treatments: [{text: A home}]}
""",
)


async def test_an_offer_has_its_own_rules_those_of_its_group_and_those_for_all() -> None:
    engine = SmallEngine(GROUPED)
    await engine.publish("complaint")
    await engine.fold()
    answer = await engine.decide(context={"minutes": 5})
    candidates = {candidate.offer_id: candidate for candidate in (await engine.explain(answer.decision_id)).candidates}
    assert [(unmet.layer, unmet.name, unmet.expression) for unmet in candidates["mortgage"].unmet] == [
        ("applicability", "not while they complain", "complaints_90d == 0.0"),
        ("suitability", "has the time for it", "minutes >= 10.0"),
    ]
    assert [unmet.layer for unmet in candidates["card"].unmet] == ["applicability"], "no sale is made to her now"
    assert candidates["helpline"].eligible, "a service is"


async def test_an_offer_takes_from_its_group_what_it_does_not_say() -> None:
    [mortgage, *_] = SmallEngine(GROUPED).catalogue.offers
    assert (mortgage.contact_cost, mortgage.value) == (1, 500)
