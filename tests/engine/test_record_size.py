"""What a record costs is what the fold makes of events."""

from pathlib import Path

from engine.catalogue import Catalogue
from engine.recordsize import record_size
from features.record import HEADER_BYTES
from tests.small_engine import CONFIG, catalogue_of


def test_a_record_grows_with_what_happens_and_its_windows_bound_it() -> None:
    size = record_size(catalogue_of())
    assert HEADER_BYTES < size.one_each_bytes < size.hourly_bytes
    assert size.hourly_days == 90.0
    day = CONFIG.replace(b"window: 30d", b"window: 1d").replace(b"window: 7d", b"window: 1d")
    shorter = record_size(catalogue_of(day.replace(b"window: 90d", b"window: 1d")))
    assert shorter.hourly_days == 1.0 and shorter.hourly_bytes < size.hourly_bytes


def test_without_events_there_is_no_record() -> None:
    text = CONFIG[: CONFIG.index(b"events:")] + CONFIG[CONFIG.index(b"offers:") :]
    text = text.replace(b'    eligibility: ["complaints_90d == 0.0", "spent_30d > 100.0"]\n', b"")
    assert record_size(catalogue_of(text)).one_each_bytes == 0


def test_the_workload_of_the_benchmark_is_what_is_published() -> None:
    """580 bytes in the store with 10 to 60 events: between these two."""
    size = record_size(Catalogue.of_file(Path(__file__).parents[2] / "bench" / "features.yaml"))
    assert 200 < size.one_each_bytes < 580 < size.hourly_bytes < 2_000
