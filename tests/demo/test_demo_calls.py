"""The file as calls, and what the engine and its rivals see of them."""

import csv
import gzip
import hashlib
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.catalogue import Catalogue
from engine.config import load
from engine.decide import decide
from engine.demo import CALLS, CONFIG
from engine.demo_calls import MONTHS, Call, read_calls
from engine.demo_replay import decide_request, profile_event
from engine.demo_rivals import inputs_of, rivals
from engine.drafts import Draft
from engine.gateway import ask_of, checked_event
from engine.learner import posterior_options
from engine.record import DecisionRecord
from features import Event, Offset
from models import Policy

NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    return read_calls(CALLS)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.compile(*load(CONFIG), str(CONFIG))


def test_the_file_is_the_published_one() -> None:
    published = "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8"
    assert hashlib.sha256(gzip.decompress(CALLS.read_bytes())).hexdigest() == published
    assert published in (CALLS.parent / "ATTRIBUTION.md").read_text()


def test_all_calls_are_there_in_order_and_in_their_month(calls: list[Call]) -> None:
    assert (len(calls), sum(call.yes for call in calls)) == (41_188, 4_640)
    assert [call.number for call in calls] == list(range(41_188))
    assert all(one.time_ms < two.time_ms for one, two in pairwise(calls))
    times = [datetime.fromtimestamp(call.time_ms / 1e3, UTC) for call in calls]
    assert all(MONTHS[time.month - 1] == call.facts["month"] for time, call in zip(times, calls, strict=True))
    assert (times[0].year, times[0].month, times[-1].year, times[-1].month) == (2008, 5, 2010, 11)


def test_the_length_of_the_call_reaches_nobody(calls: list[Call], tmp_path: Path) -> None:
    assert "duration" not in CONFIG.read_text()
    assert not any("duration" in {**call.profile, **call.facts} for call in calls)
    # The proof: with other lengths the calls are the same.
    other = tmp_path / "other.csv.gz"
    with gzip.open(CALLS, "rt", newline="") as source, gzip.open(other, "wt", newline="", compresslevel=1) as target:
        rows = csv.DictReader(source, delimiter=";")
        writer = csv.DictWriter(target, rows.fieldnames or (), delimiter=";")
        writer.writeheader()
        writer.writerows(row | {"duration": "-1"} for row in rows)
    assert read_calls(other) == calls


def test_everything_sent_is_declared(calls: list[Call], catalogue: Catalogue) -> None:
    """Undeclared attributes would be dropped in silence, undeclared categories would count as missing."""
    declared = {column.name: column for column in catalogue.columns}
    for call in calls:
        for name, value in {**call.profile, **call.facts}.items():
            assert not isinstance(value, str) or value in declared[name].categories
    assert {*catalogue.event_types["crm.profile"], *catalogue.facts} == set(declared)
    assert catalogue.transform.dimension - catalogue.transform.waves <= 80


def test_the_regression_sees_what_the_engine_sees(calls: list[Call], catalogue: Catalogue) -> None:
    some = [*calls[:50], *calls[-50:]]
    options = posterior_options(catalogue)
    policy = Policy.empty(
        catalogue.offer_ids, catalogue.transform.dimension, options, transform_version=catalogue.transform.version
    )
    seen = []
    for call in some:
        event = profile_event(call)
        attributes = {name: getattr(value, value.WhichOneof("kind")) for name, value in event.attributes.items()}
        checked_event(event.id, event.source, event.type, call.customer, event.time_ms, attributes, catalogue, NOW_MS)
        folded = catalogue.layout.fold(None, [Event(1, event.type, event.time_ms, attributes, Offset(1, 0))])
        ask = ask_of(decide_request(call), catalogue, NOW_MS)
        [draft] = decide(catalogue, policy, [ask], [(folded.record, None)])
        assert isinstance(draft, Draft)
        seen.append(np.frombuffer(DecisionRecord.unpack(draft.record).x, np.int8))
    plain = catalogue.transform.dimension - catalogue.transform.waves
    assert np.array_equal(np.array(seen)[:, :plain], inputs_of(catalogue, some))


def test_without_scikit_learn_the_other_rivals_remain(
    calls: list[Call], catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    gain = np.array([9.0 if call.yes else -1.0 for call in calls])
    found = {rival.name: float(gain[rival.pitched].sum()) for rival in rivals(catalogue, calls, gain)}
    assert found == {
        "always pitch": 5_212.0,
        "never pitch": 0.0,
        "best constant: always pitch": 5_212.0,
        "best: exactly the yeses": 41_760.0,
    }
