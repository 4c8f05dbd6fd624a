"""The data-quality check finds and names the faults that are put into seeded streams, and nothing in clean ones."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.config import load
from engine.demo_calls import read_calls
from engine.featurecheck import thresholds
from engine.featurecheck.arrivals import Arrivals, type_findings
from engine.featurecheck.drift import DecisionSample, InputColumns, columns_of, drift_findings, drift_of
from engine.featurecheck.finding import Finding, Level
from engine.featurecheck.rejected import Letters, rejected_findings
from engine.featurecheck.report import Report, Verdict
from engine.featurecheck.values import CustomerSample, RecordFigures, feature_findings, record_findings
from engine.record import DecisionRecord
from engine.store.base import LogEntry
from features import Event, Layout, Offset
from tests.small_engine import CONFIG, catalogue_of

BANK = Path(__file__).parents[2] / "examples" / "bank"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_750_000_000_000
SHOP = catalogue_of()


def problems(findings: list[Finding]) -> set[tuple[str, str]]:
    """(subject, problem) of each."""
    return {(finding.subject, finding.problem) for finding in findings}


# --- drift ----------------------------------------------------------------------------------------------------------


def numeric(*names: str) -> list[InputColumns]:
    return [InputColumns(name, "linear", at, (name,), -127.0, 127.0) for at, name in enumerate(names, 1)]


def stationary(rows: int, columns: int, seed: int) -> NDArray[np.int8]:
    """Bias and columns of four kinds: bell, flat, a rare flag, long-tailed."""
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[], NDArray[np.float64]]] = [
        lambda: rng.normal(0, 40, rows).clip(-127, 127),
        lambda: rng.uniform(-127, 127, rows),
        lambda: np.where(rng.random(rows) < 0.03, 127.0, 0.0),
        lambda: (rng.exponential(30, rows) - 127).clip(-127, 127),
    ]
    x = [np.full(rows, 127.0), *(kinds[at % len(kinds)]() for at in range(columns))]
    return np.column_stack(x).round().astype(np.int8)


def times(rows: int, days: float = 20.0) -> NDArray[np.int64]:
    return (NOW_MS - days * DAY_MS * np.arange(rows - 1, -1, -1) / rows).astype(np.int64)


def found_in(x: NDArray[np.int8], inputs: list[InputColumns], days: float = 20.0, **options: int) -> list[Finding]:
    figures = drift_of(x, times(len(x), days), inputs)
    return [f for moved in figures for f in drift_findings(moved, NOW_MS, options.get("half_life_ms"))]


@pytest.mark.parametrize("seed", range(3))
def test_sixty_four_stationary_inputs_raise_no_alarm(seed: int) -> None:
    inputs = numeric(*(f"i{at}" for at in range(64)))
    x = stationary(20_000, 64, seed)
    assert sum(len(figures.changes) for figures in drift_of(x, times(len(x)), inputs)) <= 1
    assert found_in(x, inputs) == []


@pytest.mark.parametrize("rows", [500, 700, 1_500])
def test_few_stationary_decisions_raise_no_alarm(rows: int) -> None:
    inputs = numeric(*(f"i{at}" for at in range(64)))
    assert [found_in(stationary(rows, 64, seed), inputs) for seed in range(5)] == [[]] * 5


def test_too_few_decisions_are_not_judged() -> None:
    rows = thresholds.DRIFT_DECISIONS_MIN - 1
    assert drift_of(stationary(rows, 3, 1), times(rows), numeric("a", "b", "c")) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_is_found_with_its_time_and_its_direction(seed: int) -> None:
    x = stationary(20_000, 64, seed)
    x[14_000:, 9] = (x[14_000:, 9].astype(int) + 40).clip(-127, 127)
    inputs = numeric(*(f"i{at}" for at in range(64)))
    [finding] = found_in(x, inputs)
    assert (finding.subject, finding.problem, finding.level) == ("i8", "drift", Level.WARNING)
    assert "rose from" in finding.sentence
    moved = next(figures for figures in drift_of(x, times(len(x)), inputs) if figures.source == "i8")
    [change] = [change for change in moved.changes if change.psi > thresholds.PSI_NOTE]
    assert abs(change.row - 14_000) < 100
    assert change.time_ms == times(len(x))[change.row]
    assert (change.before, change.after) == (pytest.approx(0, abs=3), pytest.approx(40, abs=3))


def test_a_category_that_takes_over_is_named() -> None:
    rng = np.random.default_rng(4)
    job = np.concatenate([rng.choice(3, 6_000, p=[0.5, 0.4, 0.1]), rng.choice(3, 4_000, p=[0.2, 0.2, 0.6])])
    x = np.column_stack([np.full(10_000, 127), *(np.where(job == at, 127, 0) for at in range(3))]).astype(np.int8)
    [finding] = found_in(x, [InputColumns("job", "one_hot", 1, ("job[clerk]", "job[nurse]", "job[pilot]"))])
    assert finding.subject == "job"
    assert "on 2025-06-" in finding.sentence
    assert "% to " in finding.measured


def test_a_change_of_shape_that_moves_no_mean_is_found() -> None:
    rng = np.random.default_rng(5)
    spread = np.where(np.arange(8_000) < 4_000, 10.0, 60.0)
    column = rng.normal(0, spread).clip(-127, 127)
    x = np.column_stack([np.full(8_000, 127), column]).round().astype(np.int8)
    [finding] = found_in(x, numeric("balance"))
    assert (finding.subject, finding.level) == ("balance", Level.WARNING)


def test_a_slow_rise_is_found() -> None:
    x = stationary(20_000, 4, 6)
    x[:, 1] = (x[:, 1] + np.linspace(0, 60, 20_000)).clip(-127, 127).round()
    assert problems(found_in(x, numeric("slow", "b", "c", "d"))) == {("slow", "drift")}


@pytest.mark.parametrize(("days", "half_life_ms", "level"), [
    (100, None, Level.WARNING),
    (400, None, Level.NOTE),
    (100, 5 * DAY_MS, Level.NOTE),
    (100, 30 * DAY_MS, Level.WARNING),
])  # fmt: skip
def test_a_change_is_a_note_when_what_was_learnt_before_it_has_faded(
    days: float, half_life_ms: int | None, level: Level
) -> None:
    x = stationary(4_000, 1, 7)
    x[2_400:, 1] = (x[2_400:, 1].astype(int) + 50).clip(-127, 127)
    figures = drift_of(x, times(len(x), days), numeric("balance"))
    assert [f.level for moved in figures for f in drift_findings(moved, NOW_MS, half_life_ms)] == [level]


@pytest.fixture(scope="module")
def bank() -> tuple[Catalogue, NDArray[np.int8], NDArray[np.int64]]:
    """The vectors of a bank's real calls, every fourth of them."""
    catalogue = Catalogue.compile(*load(BANK / "opportune.yaml"))
    calls = read_calls(BANK / "bank-additional-full.csv.gz")[::4]

    def number(value: float | str | None, categories: tuple[str, ...]) -> float:
        return float("nan") if value is None else float(categories.index(value)) if isinstance(value, str) else value

    rows = [
        [number((call.profile | call.facts).get(column.name), column.categories) for column in catalogue.columns]
        for call in calls
    ]
    return catalogue, catalogue.transform.apply(np.array(rows)), np.array([call.time_ms for call in calls])


Bank = tuple[Catalogue, NDArray[np.int8], NDArray[np.int64]]


def test_the_drift_of_a_real_campaign_is_found(bank: Bank) -> None:
    """The economy of 2008 to 2010 moved, the bank called other people in other months, and mobile phones came."""
    catalogue, x, times_ms = bank
    figures = {moved.source: moved for moved in drift_of(x, times_ms, columns_of(catalogue))}
    found = {f.subject: f for moved in figures.values() for f in drift_findings(moved, int(times_ms[-1]), 30 * DAY_MS)}
    assert {"euribor_3m", "employment_variation", "employees_thousands", "consumer_prices", "phone"} <= set(found)
    assert max(finding.level for finding in found.values()) == Level.WARNING
    euribor = figures["euribor_3m"]
    assert (euribor.first, euribor.last) == (pytest.approx(4.9, abs=0.1), pytest.approx(1.1, abs=0.1))
    # The rate fell below 2 % when 2009 began; the file has no calls of January and February.
    fall = min(euribor.changes, key=lambda change: change.after - change.before)
    assert (fall.before > 3.5, fall.after < 2.5) == (True, True)


def test_the_same_calls_in_random_order_do_not_drift(bank: Bank) -> None:
    catalogue, x, times_ms = bank
    for seed in range(2):
        shuffled = x[np.random.default_rng(seed).permutation(len(x))]
        figures = drift_of(shuffled, times_ms, columns_of(catalogue))
        assert [f for moved in figures for f in drift_findings(moved, int(times_ms[-1]), None)] == []


def decision(x: bytes, at: int, **changes: object) -> LogEntry:
    record = DecisionRecord(
        time_ms=NOW_MS + at, seed=0, config_version="00" * 8, transform_version=SHOP.transform.version,
        policy_version=0, watermark=Offset.ZERO, latest_event_ms=0, channel=0, placement=0, degraded=0, known=True,
        limit=1, customer="ann", request_id="", context=b"", x=x, rules_held=b"", rules_failed=b"",
        nothing_propensity=0.0, slate=(),
    )  # fmt: skip
    return LogEntry(Offset(NOW_MS + at, 0), replace(record, **changes).pack())  # type: ignore[arg-type]


def test_only_decisions_with_the_inputs_of_the_configuration_are_compared() -> None:
    sample = DecisionSample(SHOP)
    x = bytes(SHOP.transform.dimension)
    sample.add(decision(x, 1))
    sample.add(decision(x, 2, known=False))
    sample.add(decision(x, 3, transform_version=1))
    sample.add(decision(x, 4, degraded=3))
    sample.add(LogEntry(Offset(NOW_MS + 5, 0), b"\x01nonsense"))
    counts = (sample.kept, sample.unknown, sample.other_inputs, sample.unreadable, sample.damaged)
    assert counts == (4, 1, 1, 1, 1)


def test_thinning_takes_every_so_many_decisions_in_order_of_the_log_across_partitions() -> None:
    sample = DecisionSample(SHOP, stride=2)
    shift = [(-127 if at < 1_000 else 127, at) for at in range(2_000)]
    for partition in (0, 1):
        for value, at in shift[partition::2]:
            x = np.zeros(SHOP.transform.dimension, np.int8)
            x[1] = value
            sample.add(decision(x.tobytes(), at * 1_000))
    [spent, *others] = sample.drift(columns_of(SHOP))
    assert (sample.kept, spent.source, spent.decisions) == (1_000, "spent_30d", 1_000)
    assert [change.time_ms for change in spent.changes] == [NOW_MS + 1_000_000]
    assert [moved.changes for moved in others] == [()] * len(others)


# --- features and records -------------------------------------------------------------------------------------------


def events_of(customer: int, rng: np.random.Generator) -> list[Event]:
    """A few purchases of the last days, and a complaint of every fifth customer."""
    purchases = sorted(NOW_MS - int(age) for age in rng.uniform(0, 6 * DAY_MS, 1 + customer % 7))
    events = [
        Event(customer * 100 + at + 1, "purchase", time_ms,
              {"amount": float(rng.exponential(60)), "category": str(rng.choice(["food", "travel"]))}, Offset(1, at))
        for at, time_ms in enumerate(purchases)
    ]  # fmt: skip
    if customer % 5 == 0:
        events.append(Event(customer * 100 + 99, "complaint", NOW_MS - DAY_MS, {}, Offset(2, 0)))
    return events


Change = Callable[[int, list[Event]], list[Event]]


def sample_of(change: Change = lambda customer, events: events, customers: int = 400) -> CustomerSample:
    rng = np.random.default_rng(11)
    sample = CustomerSample(SHOP.layout, NOW_MS)
    folded = [SHOP.layout.fold(None, change(number, events_of(number, rng))).record for number in range(customers)]
    for start in range(0, customers, 150):
        sample.add(folded[start : start + 150])
    return sample


def judged(sample: CustomerSample, newest_ms: Mapping[str, int] | None = None) -> list[Finding]:
    newest = {"purchase": NOW_MS, "complaint": NOW_MS} if newest_ms is None else newest_ms
    figures = sample.features(SHOP.config, newest)
    found = record_findings(sample.records())
    for row, feature in zip(figures, SHOP.config.all_features, strict=True):
        found += feature_findings(row, feature)
    return found


def with_attributes(**attributes: float | str) -> Change:
    return lambda customer, events: [
        replace(event, attributes={**event.attributes, **attributes}) if event.type == "purchase" else event
        for event in events
    ]


def without(name: str, share: float) -> Change:
    def change(customer: int, events: list[Event]) -> list[Event]:
        if customer >= share * 400:
            return events
        return [
            replace(event, attributes={key: value for key, value in event.attributes.items() if key != name})
            for event in events
        ]

    return change


def test_clean_features_give_no_finding() -> None:
    assert judged(sample_of()) == []


def test_figures_of_a_feature_are_those_of_its_values() -> None:
    figures = {row.name: row for row in sample_of().features(SHOP.config, {})}
    purchases = figures["purchases_7d"]
    counts = [1 + number % 7 for number in range(400)]
    assert (purchases.customers, purchases.low, purchases.high) == (400, 1.0, 7.0)
    assert purchases.mean == pytest.approx(np.mean(counts), abs=0.01)
    assert purchases.p50 == pytest.approx(np.median(counts), abs=1)
    assert figures["complaints_90d"].zero_share == pytest.approx(0.8)
    assert sum(figures["last_category"].bars) == 400
    assert purchases.missing_share != purchases.missing_share  # nobody lacks a count: it is 0


def test_the_newest_event_of_a_ratio_is_that_of_its_parts() -> None:
    ratios = b"""  - {name: share, function: ratio, numerator: complaints_90d, denominator: purchases_7d}
  - {name: deeper, function: ratio, numerator: share, denominator: complaints_90d}
offers:"""
    shop = catalogue_of(CONFIG.replace(b"offers:", ratios, 1))

    def newest(**by_type: int) -> list[int | None]:
        figures = {row.name: row for row in CustomerSample(shop.layout, NOW_MS).features(shop.config, by_type)}
        return [figures[name].newest_event_ms for name in ("complaints_90d", "share", "deeper")]

    assert newest(purchase=7, complaint=5) == [5, 7, 7]
    assert newest(complaint=5) == [5, 5, 5]
    assert newest() == [None, None, None]


@pytest.mark.parametrize(("change", "problem", "level"), [
    (with_attributes(amount=20_000.0), ("spent_30d", "clipped"), Level.WARNING),
    (with_attributes(category="food"), ("last_category", "constant"), Level.WARNING),
    (without("category", 0.7), ("last_category", "missing"), Level.NOTE),
    (without("category", 1.0), ("last_category", "missing"), Level.WARNING),
    (lambda customer, events: events[:1], ("purchases_7d", "constant"), Level.WARNING),
    (lambda customer, events: [e for e in events if e.type == "purchase"], ("complaints_90d", "constant"), Level.NOTE),
])  # fmt: skip
def test_a_fault_in_the_values_is_named(change: Change, problem: tuple[str, str], level: Level) -> None:
    found = {(f.subject, f.problem): f for f in judged(sample_of(change))}
    assert found[problem].level == level
    assert found[problem].sentence.startswith(f"{problem[0]}: ")


def test_a_feature_whose_events_never_came_is_named() -> None:
    sample = sample_of(lambda customer, events: [event for event in events if event.type == "purchase"])
    assert problems(judged(sample, {"purchase": NOW_MS})) == {("complaints_90d", "never_written")}


def test_few_customers_are_shown_and_not_judged() -> None:
    sample = sample_of(with_attributes(category="food", amount=20_000.0), customers=thresholds.CUSTOMERS_MIN - 1)
    assert judged(sample) == []


def test_damaged_records_are_counted_and_in_no_figure() -> None:
    sample = sample_of()
    record = SHOP.layout.fold(None, events_of(1, np.random.default_rng(1))).record
    sample.add([record[:-1] + bytes([record[-1] ^ 1]), b"no record"])
    found = judged(sample)
    assert problems(found) == {("records", "damaged")}
    assert (found[0].level, sample.records().damaged, sample.records().customers) == (Level.ERROR, 2, 402)
    assert sample.features(SHOP.config, {})[0].customers == 400


def test_records_of_earlier_features_are_counted_and_in_no_figure() -> None:
    earlier = Layout.compile(SHOP.layout.specs[:2])
    sample = sample_of()
    sample.add([earlier.fold(None, events_of(n, np.random.default_rng(n))).record for n in range(100)])
    assert problems(judged(sample)) == {("records", "old_layout")}
    assert sample.features(SHOP.config, {})[0].customers == 400


def test_duplicates_and_late_events_are_counted() -> None:
    def twice(customer: int, events: list[Event]) -> list[Event]:
        again = [replace(event, offset=Offset(3, at)) for at, event in enumerate(events)]
        return events + again if customer % 4 == 0 else events

    def late(customer: int, events: list[Event]) -> list[Event]:
        ago = Event(customer * 100 + 98, "purchase", NOW_MS - 80 * DAY_MS, {"amount": 1.0}, Offset(4, 0))
        return [*events, ago] if customer % 10 == 0 else events

    assert problems(judged(sample_of(twice))) == {("records", "duplicates")}
    assert problems(judged(sample_of(late))) == {("records", "late")}


# --- event types ----------------------------------------------------------------------------------------------------


def arrivals_of(
    drop: Callable[[int], bool] = lambda time_ms: False,
    lateness_ms: Callable[[np.random.Generator], float] = lambda rng: rng.exponential(2_000),
    category: Callable[[np.random.Generator], str] = lambda rng: str(rng.choice(["food", "travel"])),
) -> list[Finding]:
    """Ten days of purchases by day, none by night, one in four minutes on average, ending now; findings about them."""
    rng = np.random.default_rng(21)
    arrivals = Arrivals(SHOP.config)
    for minute in range(0, 10 * 24 * 60, 4):
        time_ms = NOW_MS - 10 * DAY_MS + minute * 60_000 + int(rng.uniform(0, 240_000))
        asleep = (time_ms - NOW_MS) % DAY_MS > 16 * HOUR_MS and NOW_MS - time_ms > 9 * HOUR_MS
        if time_ms > NOW_MS or asleep or drop(time_ms) or rng.random() < 0.3:
            continue
        attributes: dict[str, float | str | bool] = {"amount": 5.0, "category": category(rng)}
        arrivals.add(Event(0, "purchase", time_ms, attributes, Offset(0, 1)), time_ms + int(lateness_ms(rng)))
    return [f for figures in arrivals.figures(NOW_MS) for f in type_findings(figures, NOW_MS)]


def test_clean_arrivals_give_no_finding() -> None:
    assert arrivals_of() == []


def test_a_type_that_stopped_coming_is_named() -> None:
    [finding] = arrivals_of(drop=lambda time_ms: time_ms > NOW_MS - 34 * HOUR_MS)
    assert (finding.subject, finding.problem, finding.level) == ("purchase", "stopped", Level.WARNING)
    assert "no event for 1.42 d" in finding.sentence


@pytest.mark.parametrize(("days_ago", "level"), [(9.8, Level.NOTE), (6.5, Level.WARNING)])
def test_a_gap_is_named_and_is_a_note_when_it_is_long_over(days_ago: float, level: Level) -> None:
    start_ms = NOW_MS - days_ago * DAY_MS
    found = arrivals_of(drop=lambda time_ms: start_ms < time_ms < start_ms + 2.2 * DAY_MS)
    assert [(f.subject, f.problem, f.level) for f in found] == [("purchase", "gap", level)]


def test_late_arrivals_are_held_against_the_shortest_window() -> None:
    """The shortest window on a purchase is of seven days."""
    [finding] = arrivals_of(lateness_ms=lambda rng: 8 * DAY_MS if rng.random() < 0.1 else 1_000)
    assert (finding.subject, finding.problem, finding.level) == ("purchase", "late", Level.WARNING)
    [loaded] = arrivals_of(lateness_ms=lambda rng: 90 * DAY_MS)
    assert (loaded.problem, loaded.level) == ("late", Level.NOTE)


def test_a_clock_that_is_ahead_is_told() -> None:
    [finding] = arrivals_of(lateness_ms=lambda rng: -60_000 if rng.random() < 0.2 else 100)
    assert (finding.problem, finding.level) == ("ahead", Level.NOTE)


def test_values_that_are_not_declared_are_named() -> None:
    [finding] = arrivals_of(category=lambda rng: "fodo" if rng.random() < 0.05 else "food")
    assert (finding.subject, finding.problem, finding.level) == ("purchase.category", "unknown_values", Level.WARNING)
    assert "'fodo'" in finding.sentence


# --- dead letters ---------------------------------------------------------------------------------------------------


def test_refused_events_are_grouped_by_type_and_reason() -> None:
    letters = Letters(NOW_MS - 7 * DAY_MS)
    for at in range(30):
        letters.add(NOW_MS - at * HOUR_MS, "purchase", f"attributes[amount]: -{at}.5, expected 0.0 to 100000.0")
    for at in range(3):
        reason = f"type: no event type 'refund{at}' is declared; there are purchase, complaint"
        letters.add(NOW_MS - 8 * DAY_MS - at, "refund", reason)
    groups = letters.figures()
    assert [(group.type, group.letters, group.recent) for group in groups] == [("purchase", 30, 30), ("refund", 3, 0)]
    assert groups[0].newest_reason == "attributes[amount]: -0.5, expected 0.0 to 100000.0"
    found = rejected_findings(groups, accepted_recent=1_000)
    assert [(f.subject, f.level) for f in found] == [("purchase", Level.WARNING), ("refund", Level.NOTE)]
    assert [f.level for f in rejected_findings(groups, accepted_recent=10_000)] == [Level.NOTE, Level.NOTE]


def test_many_small_reasons_are_a_warning_together() -> None:
    letters = Letters(0)
    for at in range(30):
        letters.add(NOW_MS, f"type{at}", "id: empty")
    found = rejected_findings(letters.figures(), accepted_recent=1_500)
    assert {f.subject for f in found if f.level == Level.WARNING} == {"all types"}


def test_no_producer_can_make_more_groups_than_are_kept() -> None:
    letters = Letters(0)
    for at in range(5_000):
        letters.add(NOW_MS, f"type{at}", "type: unknown")
    assert len(letters.figures()) <= thresholds.PATTERNS_MAX + 1
    assert sum(group.letters for group in letters.figures()) == 5_000


# --- the report -----------------------------------------------------------------------------------------------------


def report_of(findings: list[Finding], customers: int = 10) -> Report:
    records = RecordFigures(customers, 0, 0, 0, 0, 0, float("nan"))
    return Report("shop", "00", NOW_MS, records, [], [], [], {}, [], findings)


def test_the_verdict_is_that_of_the_worst_finding() -> None:
    note = Finding(Level.NOTE, "features", "age", "missing", 0.6, "a", "b", "c")
    assert report_of([]).verdict == Verdict.CLEAN
    assert report_of([note]).verdict == Verdict.CLEAN
    assert report_of([note, replace(note, level=Level.WARNING)]).verdict == Verdict.FINDINGS
    assert report_of([], customers=0).verdict == Verdict.CANNOT_TELL


def test_findings_come_worst_first_and_json_says_the_same() -> None:
    note = Finding(Level.NOTE, "features", "age", "missing", 0.6, "a", "b", "c")
    report = report_of([note, replace(note, level=Level.ERROR), replace(note, number=0.9)])
    content = orjson.loads(report.to_json())
    told = [(finding["level"], finding["number"]) for finding in content["findings"]]
    assert told == [("error", 0.6), ("note", 0.9), ("note", 0.6)]
    assert (content["verdict"], content["records"]["age_ms_median"]) == ("findings", None)
    assert content["findings"][0]["sentence"] == "age: a, expected b; c."
