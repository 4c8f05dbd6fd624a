"""A period decided again under edited configurations: what differs comes from the edit; what is not known is said."""

from pathlib import Path

import pytest

from engine.errors import InvalidArgument
from engine.whatif.command import compared
from engine.whatif.report import Report
from tests.small_engine import CONFIG, SmallEngine, catalogue_of

SEGMENTS = b"""
segments:
  - {name: spender, when: spent_30d > 200.0}
  - {name: quiet, when: purchases_7d < 1.0}
"""
SEGMENTED = CONFIG + SEGMENTS
PEOPLE = 60


async def used() -> SmallEngine:
    """An engine that has decided, been told outcomes and learnt."""
    engine = SmallEngine(SEGMENTED)
    for n in range(PEOPLE // 2):
        await engine.publish("purchase", f"customer-{n}", amount=20.0 * n, category=("food", "travel")[n % 2])
    await engine.fold()
    for n in range(2 * PEOPLE):
        answer = await engine.decide(
            f"customer-{n % PEOPLE}", ("branch", "web")[n % 2 and n % 3 and 1], context={"minutes": float(n % 50)}
        )
        if answer.offers:
            await engine.report(answer.decision_id, answer.offers[0].offer_id, ("accepted", "declined")[n % 3 > 0])
    await engine.learn()
    return engine


async def report_of(engine: SmallEngine, *edits: bytes) -> Report:
    catalogues = [catalogue_of(SEGMENTED), *map(catalogue_of, edits)]
    names = ["as it is", *[f"edit {n}" for n in range(len(edits))]]
    return await compared(engine.store, "log", names, catalogues)


async def test_the_same_configuration_changes_nothing() -> None:
    found = (await report_of(await used(), SEGMENTED)).content()
    first, again = found["scenarios"]
    assert found["decisions"] == 2 * PEOPLE and found["people"] == PEOPLE
    assert again["all"]["other_first_offer"] == again["all"]["other_slate"] == 0
    assert again["all"]["expected_value_more"] == 0.0
    assert {**again, "scenario": ""} == {**first, "scenario": ""}
    assert not found["remarks"]
    # Parts add up.
    assert sum(part["decisions"] for part in first["channels"]) == found["decisions"]
    assert [part["part"] for part in first["segments"]] == ["spender", "quiet"]
    assert first["segments"][1]["people"] >= PEOPLE // 2


async def test_an_edited_rule_is_replayed_exactly() -> None:
    """The loan for whom spends more than 100, then for nobody: whoever was shown it is shown something else."""
    engine = await used()
    tighter = SEGMENTED.replace(b"spent_30d > 100.0", b"spent_30d > 300.0")
    nobody = SEGMENTED.replace(b"spent_30d > 100.0", b"spent_30d > 1e9")
    found = (await report_of(engine, tighter, nobody)).content()
    loans = [each["offers"][1] for each in found["scenarios"]]
    assert [one["offer"] for one in loans] == ["loan"] * 3
    assert loans[0]["shown"] > loans[1]["shown"] > loans[2]["shown"] == 0
    # A decision's slate changes for the second where, and only where, the loan stood in it.
    assert found["scenarios"][2]["all"]["other_slate"] == loans[0]["shown"]
    spender = [each["segments"][0] for each in found["scenarios"]]
    assert spender[2]["expected_value"] < spender[0]["expected_value"]


async def test_levers_and_new_offers() -> None:
    engine = await used()
    pushed = SEGMENTED.replace(b"value: 30\n", b"value: 30\n    lever: 50\n")
    fresh = b"  - {id: fresh, value: 500, treatments: [{text: New}]}\n"
    with_a_new_one = SEGMENTED.replace(b"fallback:", fresh + b"fallback:")
    found = (await report_of(engine, pushed, with_a_new_one)).content()
    offers = {each["scenario"]: {one["offer"]: one for one in each["offers"]} for each in found["scenarios"]}
    assert offers["edit 0"]["helpline"]["shown_first"] > offers["as it is"]["helpline"]["shown_first"]
    # Levers are wishes: they do not make an offer worth more.
    assert found["scenarios"][1]["all"]["expected_value_more"] <= 1e-9
    assert offers["edit 1"]["fresh"]["shown"] > 0 == offers["as it is"]["fresh"]["shown"]


async def test_what_cannot_be_told_is_said() -> None:
    engine = await used()
    other_inputs = SEGMENTED.replace(b"input: {range: [0, 20]}", b"input: {range: [0, 30]}")
    with pytest.raises(InvalidArgument, match="edit 0: its inputs of the model are not those of the policy"):
        await report_of(engine, other_inputs)
    trips = b"  - {name: trips, event: purchase, function: count, window: 30d, where: {category: travel}}\n"
    new_feature = SEGMENTED.replace(b"offers:\n", trips + b"offers:\n").replace(b"spent_30d > 100.0", b"trips > 2.0")
    no_web = SEGMENTED.replace(b"  - {id: web, placements: [hero, footer]}\n", b"")
    found = (await report_of(engine, new_feature, no_web)).content()
    assert "edit 0: trips was not there when the log was made and has its default" in found["remarks"]
    assert any("a scenario does not have their channel" in remark for remark in found["remarks"])
    with pytest.raises(InvalidArgument, match="holds no decision that can be made again"):
        await report_of(SmallEngine(SEGMENTED), SEGMENTED)


async def test_it_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    report = await report_of(await used(), SEGMENTED.replace(b"value: 100", b"value: 1"))
    report.print(Console(width=140))
    shown = capsys.readouterr().out
    assert "By segment" in shown and "By channel" in shown and "edit 0" in shown
    assert b'"under_served"' in report.to_json()
