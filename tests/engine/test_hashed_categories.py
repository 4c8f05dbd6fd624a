"""Texts of an open vocabulary as inputs: cities, tariffs, sources of campaigns, of which nobody has a list."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from engine.again import made_again
from engine.cli import main
from engine.config import parse
from engine.errors import ConfigError
from engine.featurecheck.drift import columns_of, drift_of
from engine.featurecheck.values import CustomerSample
from engine.history import decisions
from engine.history.asof import _table
from engine.rivermodel import check_challengers
from features import shown_hash, text_hash
from tests.small_engine import CONFIG, START_MS, SmallEngine, catalogue_of, features_of

HASHED = (
    CONFIG.replace(
        b"context:\n",
        b"context:\n"
        b"  - {name: source, type: text, default: none, input: {kind: hashed, columns: 16, signed: true}}\n",
    )
    .replace(b"      abroad: {type: flag}\n", b"      abroad: {type: flag}\n      city: {type: text}\n")
    .replace(
        b"offers:\n",
        b"  - {name: city, event: purchase, function: last, attribute: city,\n"
        b"     input: {kind: hashed, columns: 32, names: [Brno, Prague]}}\n"
        b"learning: {crosses: [[source, minutes]], waves: 4}\n"
        b"offers:\n",
        1,
    )
    .replace(b'"spent_30d > 100.0"', b'"spent_30d > 100.0", "city in [\'Brno\', \'Prague\'] && source != \'spam\'"')
)


async def test_a_fact_and_a_last_text_decide_are_learnt_from_and_explained() -> None:
    engine = SmallEngine(HASHED)
    dice = random.Random(1)
    for n in range(60):
        customer, city = f"c{n}", dice.choice(["Brno", "Prague", "Ústí", ""])
        await engine.publish("purchase", customer, amount=200.0, city=city)
        await engine.fold()
        source = dice.choice(["mail", "shop"])
        answer = await engine.decide(customer, context={"source": source, "minutes": 10.0})
        for offer in answer.offers:
            assert offer.offer_id != "loan" or city in ("Brno", "Prague")
            stage = "accepted" if (source == "mail") == (offer.offer_id == "card") else "declined"
            await engine.report(answer.decision_id, offer.offer_id, stage)
    await engine.learn()
    decided = []
    for customer, context in (("c0", {"source": "mail"}), ("c0", {}), ("nobody", {"source": ""})):
        engine.now_ms += 1_000
        await engine.publish("purchase", "c0", amount=1.0, city="Brno")
        await engine.fold()
        answer = await engine.decide(customer, context=context)
        decided.append(answer.decision_id)
    mail, default, nobody = [await engine.explain(decision) for decision in decided]
    card = {part.input: part for part in next(c for c in mail.candidates if c.offer_id == "card").contributions}
    column = int(text_hash("mail")) % 16
    assert card["source"].value == f"mail, in column {column} of 16, which values can share"
    assert card["source"].probability > 0.05
    city = int(text_hash("Brno")) % 32
    assert card["city"].value == f"Brno, in column {city} of 32, which values can share"
    parts = {part.input: part.value for c in default.candidates for part in c.contributions}
    assert parts["source"].startswith("none, in column"), "the declared default"
    parts = {part.input: part.value for c in nobody.candidates for part in c.contributions}
    assert parts["source"] == parts["city"] == "not known"
    steps = {found.name: found.steps for found in mail.inputs}
    sign = -1 if text_hash("mail") >= 2**47 else 1
    assert steps[f"source[#{column}]"] == 127 * sign and steps[f"city[#{city}]"] == 127
    assert steps[f"source[#{column}]×minutes"] == 0 == steps["minutes"]
    await engine.publish("purchase", "c1", amount=1.0, city="Ústí")
    await engine.fold()
    nameless = await engine.explain((await engine.decide("c1")).decision_id)
    values = {part.value for c in nameless.candidates for part in c.contributions if part.input == "city"}
    hashed = text_hash("Ústí")
    assert values == {f"{shown_hash(hashed)}, in column {int(hashed) % 32} of 32, which values can share"}
    # The record has what was seen: made again, it is the same to the bit.
    kept = [(await engine.service.lookups.found(decision))[-1] for decision in decided]
    assert made_again(engine.catalogue, kept) == [[]] * 3
    assert features_of(await engine.customer("c0"))["city"] == shown_hash(text_hash("Brno"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"columns: 32", b"columns: 33", "input: columns 33: expected a power of two from 2 to 128"),
        (b"columns: 32", b"columns: 256", "input: columns 256: expected a power of two from 2 to 128"),
        (b"kind: hashed, columns: 32, names: [Brno, Prague]", b"kind: hashed", "kind hashed needs columns: expected a"),
        (b"columns: 32", b"columns: 32, range: [0, 1]", "range: a hashed text has none"),
        (b"kind: hashed, columns: 16", b"kind: one_hot, columns: 16", "columns, signed: belong to kind hashed"),
        (b"kind: hashed, columns: 16, signed: true", b"kind: one_hot", "a text fact needs its values declared"),
        (b"city: {type: text}", b"city: {type: text, values: [a]}", "hashed is for texts of which any may come"),
        (b"city: {type: text}", b"city: {type: number}", "expected kind one_hot or hashed for a text, linear"),
        (b"{name: source, type: text, default: none", b"{name: source, type: number", "expected kind one_hot or"),
        (b"default: none", b"default: 3", "expected a text, got 3"),
        (b"attribute: city,", b"attribute: city, default: 3,", "features[4].default: expected a text, got 3"),
        (b"window: 7d,", b"window: 7d, default: some,", "features[1].default: expected a number, got 'some'"),
        (b"city in ['Brno', 'Prague']", b"city.startsWith('B')", "'city' is a hashed text, and nothing but its hash"),
        (b"city in ['Brno', 'Prague']", b"city == intent", "'city' is a hashed text, and nothing but its hash is kept"),
        (b"city in ['Brno', 'Prague']", b"city > 1.0", "different types"),
        (b"Borrow for less", b"'Borrow in {city|town}'", "{city}: nothing but a hash is kept of this text"),
    ],
)
def test_a_mistake_is_told(old: bytes, new: bytes, told: str) -> None:
    assert HASHED.count(old) == 1
    with pytest.raises(ConfigError) as refused:
        catalogue_of(HASHED.replace(old, new))
    assert [line for line in str(refused.value).splitlines() if told in line], str(refused.value)
    assert all("line" in line or ":" in line for line in str(refused.value).splitlines())


def test_segments_and_questions_see_them_too() -> None:
    text = HASHED.replace(b"offers:\n", b"segments: [{name: czech, when: \"city in ['Brno', 'Prague']\"}]\noffers:\n")
    text = text.replace(
        b"fallback:",
        b"  - {id: ask, kind: question, value: 0, asks: {fact: source, answers: {mail: 0.5, shop: 0.5}},\n"
        b"     treatments: [{text: How did you hear of us?}]}\nfallback:",
    )
    catalogue = catalogue_of(text)
    values = np.full((3, catalogue.feature_count), np.nan)
    at = [column.name for column in catalogue.columns].index("city")
    values[:2, at] = text_hash("Brno"), text_hash("Ústí")
    assert [catalogue.segments.of(values[row : row + 1]) for row in range(3)] == [["czech"], [], []]
    assert catalogue.questions.asked[0].answers == (text_hash("mail"), text_hash("shop"))
    with pytest.raises(ConfigError, match=r"segments\.0\.when: 'city' is a hashed text"):
        catalogue_of(text.replace(b"when: \"city in ['Brno', 'Prague']\"", b"when: \"city.contains('B')\""))


def test_a_challenger_of_river_sees_its_column() -> None:
    text = HASHED + b"challengers: [{name: tree, model: {river: river.tree.HoeffdingTreeClassifier}}]\n"
    check_challengers(catalogue_of(text), text)


def test_commands_show_it(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_bytes(HASHED)
    valid = CliRunner().invoke(main, ["validate", str(path)])
    assert valid.exit_code == 0 and "city into 32, source into 16 signed" in " ".join(valid.output.split())
    listed = CliRunner().invoke(main, ["features", "--config", str(path)], env={"COLUMNS": "300"})
    assert listed.exit_code == 0 and "city (hashed into 32 columns)" in " ".join(listed.output.split())


def test_what_is_not_hashed_keeps_its_versions() -> None:
    """Lessons and records of customers of an earlier release go on."""
    plain = catalogue_of(CONFIG)
    assert parse(CONFIG).hashed == {}
    assert (plain.layout.version, plain.transform.version) == (0x358F536B, 0xF8559BF9)


async def test_reports_and_training_sets_tell_columns_and_texts(tmp_path: Path) -> None:
    """Of a feature the column, or its hash; of a fact what was said."""
    engine = SmallEngine(HASHED)
    cities = ["Brno", "Prague", "Ústí", ""]
    for n in range(40):
        await engine.publish("purchase", f"c{n}", amount=5.0, city=cities[n % 4])
    await engine.fold()
    layout = engine.catalogue.layout
    records = [record for record in await engine.store.read_features([f"c{n}" for n in range(40)]) if record]
    sample = CustomerSample(layout, START_MS)
    sample.add(records)
    figures = next(one for one in sample.features(engine.catalogue.config, {}) if one.name == "city")
    counts = dict(zip(figures.categories, figures.bars, strict=True))
    assert figures.missing_share == 0.25 and len(figures.categories) == 32
    for city in cities[:3]:
        assert counts[f"#{int(text_hash(city)) % 32}"] >= 10
    table = _table(layout.read(records[:4], np.full(4, START_MS)), engine.catalogue.layout)
    assert set(table["city"].to_list()) == {*(shown_hash(text_hash(city)) for city in cities[:3]), None}
    await engine.decide("c0", context={"source": "mail"})
    await engine.decide("c1")
    out = tmp_path / "decisions.parquet"
    await decisions.write(engine.store, engine.catalogue, out, None, None)
    rows = pl.read_parquet(out).unique("customer").sort("customer")
    default = int(text_hash("none")) % 16
    assert rows["input:source"].to_list() == ["mail", f"#{default}"]
    assert rows["input:city"].to_list() == [f"#{int(text_hash(city)) % 32}" for city in cities[:2]]
    inputs = next(one for one in columns_of(engine.catalogue) if one.source == "source")
    x = np.zeros((1_000, len(inputs.names)), np.int8)
    x[:500, 3], x[500:, 5] = -127, 127
    [moved] = drift_of(x, np.arange(1_000), [replace(inputs, first=0)])
    assert (moved.first, moved.last) in ((1.0, 0.0), (0.0, 1.0)) and moved.psi > 0.5
