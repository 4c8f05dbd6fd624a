"""The benchmarks of learning: inputs are made online, replay is unbiased, what is kept is used again."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import bakeoff, campaigns, coldstart
from bench.bakeoff import HOT_COLUMNS_MAX, RawSet, one_hot, order_of, prepare, standardised
from bench.learning import Held
from bench.ours import Decided, Ours, actions_of, batches
from bench.peers.environment import PeersMissing, interpreter
from bench.peers.grid import GRID, Config
from bench.peers.results import Run, finish
from bench.replay import against_constant, decisions_until, replay, thinned, together
from bench.report import Report

ROOT = Path(__file__).resolve().parents[2]
DATA = bakeoff.data_folder()
needs_data = pytest.mark.skipif(DATA is None, reason="the data sets are not in ../shared/data")


def test_what_is_made_of_a_row_depends_on_no_later_row() -> None:
    whole = prepare(_raw(60), 0)
    for rows in (1, 2, 30, 59):
        raw = _raw(60)
        order = order_of(raw, 0)
        raw.numeric[order[rows:]] *= -7.0  # later rows become other rows
        raw.categorical[order[rows:], 2] += 5
        other = prepare(raw, 0)
        width = min(whole.x.shape[1], other.x.shape[1])
        assert np.array_equal(whole.x[:rows, :width], other.x[:rows, :width])
        assert not whole.x[:rows, width:].any()
        assert not other.x[:rows, width:].any()


def test_numbers_are_standardised_by_the_rows_up_to_each() -> None:
    values = np.random.default_rng(1).normal(1e6, 3.0, (50, 2))
    found = standardised(values)
    for row in range(1, 50):
        known = values[: row + 1]
        expected = (values[row] - known.mean(axis=0)) / known.std(axis=0)
        assert found[row] == pytest.approx(np.clip(expected, -5, 5), abs=1e-6)


def test_constant_and_missing_numbers_are_zero_and_outliers_are_held() -> None:
    nan = np.nan
    values = np.array([[3.0, nan, nan, 0.1], [3.0, nan, 1.0, 0.1], [3.0, nan, 2.0, 0.1]] * 20)
    values[-1, 0] = 1e9
    found = standardised(values)
    assert not found[:-1, 0].any()
    assert found[-1, 0] == 5.0
    assert not found[:, 1].any()
    assert found[0, 2] == 0.0
    assert found[2, 2] > 0
    assert not found[:, 3].any()


def test_categories_beyond_the_bound_have_no_column() -> None:
    x, source = one_hot(np.arange(HOT_COLUMNS_MAX + 9)[:, None])
    assert x.shape == (HOT_COLUMNS_MAX + 9, HOT_COLUMNS_MAX) and len(source) == HOT_COLUMNS_MAX
    assert x[:HOT_COLUMNS_MAX].sum() == HOT_COLUMNS_MAX
    assert not x[HOT_COLUMNS_MAX:].any()


def test_orders_differ_and_a_stream_keeps_its_own() -> None:
    raw = _raw(60)
    first, second = order_of(raw, 0), order_of(raw, 1)
    assert sorted(first) == sorted(second) == list(range(60))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, order_of(raw, 0))
    assert np.array_equal(order_of(replace(raw, name="stream_made"), 3), np.arange(60))


def test_prepared_rows_are_kept_and_made_anew_when_the_data_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "cb-bakeoff-suite" / "made.csv.gz"
    file.parent.mkdir()
    lines = ["f0,f1,label", *(f"{row}.5,{'red' if row % 3 else ''},{'yes' if row % 2 else 'no'}" for row in range(20))]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    made, kept = bakeoff.prepared(tmp_path, "made", 0), bakeoff.prepared(tmp_path, "made", 0)
    assert made.key == kept.key
    assert np.array_equal(made.x, kept.x)
    assert (made.classes, made.x.shape, made.hot.tolist()) == (2, (20, 2), [False, True])
    assert made.x[:, 1].sum() == 13  # a missing category has no column
    file.write_bytes(gzip.compress("\n".join(lines[:-1]).encode()))
    assert bakeoff.prepared(tmp_path, "made", 0).key != made.key


def test_replay_tells_what_a_policy_is_worth() -> None:
    """A log whose arms depend on nothing; a policy that picks by the row. Its value is known."""
    generator = np.random.default_rng(5)
    rows, arms = 30_000, 3
    x = generator.integers(0, arms, (rows, 1)).astype(np.float32)
    logged = generator.integers(0, arms, rows)
    rewards = (generator.random(rows) < np.where(logged == x[:, 0], 0.6, 0.2)).astype(float)
    counted = replay(_ByRow(), x, logged, rewards, 50)
    assert len(counted) == pytest.approx(rows / arms, rel=0.05)
    assert rewards[counted].mean() == pytest.approx(0.6, abs=0.02)
    compared = against_constant(rewards, logged, counted, 0)
    assert compared.difference == pytest.approx(0.6 - (0.6 + 0.2 + 0.2) / 3, abs=0.03)
    assert compared.difference > compared.half_width > 0
    assert not compared.worse


def test_against_constant_is_nothing_where_both_are_the_same_events() -> None:
    logged = np.array([0, 1, 0, 1])
    found = against_constant(np.array([1.0, 5.0, 2.0, 7.0]), logged, np.array([1, 3]), 1)
    assert (found.difference, found.half_width) == (0.0, 0.0)


def test_replays_of_one_log_share_its_noise() -> None:
    generator = np.random.default_rng(4)
    logged, value = generator.integers(0, 2, 2_000), generator.normal(0.0, 1.0, 2_000)
    once = [against_constant(value, logged, np.flatnonzero(generator.random(2_000) < 0.3), 0) for _ in range(30)]
    same = together(once[:1] * 5)
    assert (same.difference, same.half_width) == pytest.approx((once[0].difference, once[0].half_width))
    mean = together(once)
    assert 0.4 * once[0].half_width < mean.half_width < 0.9 * once[0].half_width, "the log stays the same"


def test_the_interval_of_a_difference_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        logged = generator.integers(0, 2, 400)
        value = generator.normal(0.0, 1.0, 400)  # the arms are alike, the true difference is 0
        counted = np.flatnonzero((logged == 0) | (generator.random(400) < 0.3))
        found = against_constant(value, logged, counted, 0)
        covered += abs(found.difference) <= found.half_width
    assert 0.91 <= covered / 300 <= 0.98


def test_thinning_makes_all_actions_as_likely() -> None:
    generator = np.random.default_rng(3)
    logged = generator.choice(3, 40_000, p=[0.5, 0.3, 0.2])
    kept = logged[thinned(logged, (0.5, 0.3, 0.2), generator)]
    assert (np.bincount(kept) / len(kept)).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_the_share_of_the_best_arm_is_over_a_whole_window() -> None:
    best = np.array([True] * 5 + [False] * 10 + [True] * 10)
    assert decisions_until(best, 0.9, 10) == 24
    assert decisions_until(best[:20], 0.9, 10) is None
    assert decisions_until(best[:9], 0.9, 10) is None


def test_every_row_is_in_one_batch_and_learnt_after_it_was_decided() -> None:
    assert [row for part in batches(1_234) for row in range(part.start, part.stop)] == list(range(1_234))
    learner = _Noting()
    actions_of(learner, np.zeros((100, 1), np.float32), np.zeros(100, np.int64))
    assert learner.learnt == learner.decided == 100


def test_ours_learns_what_a_row_says() -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(1_500, 2)).clip(-5, 5).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    wrong = actions_of(Ours(2, np.zeros(2, np.bool_), 2, 7), x, y) != y
    assert wrong[1_000:].mean() < 0.1


def test_beyond_noise_means_paired_over_orders() -> None:
    spread = np.array([0.1, 0.3, 0.5])
    assert not Held(spread + np.array([0.010, 0.011, 0.012]), spread).not_worse
    assert Held(spread + np.array([-0.01, 0.02, 0.05]), spread).not_worse
    assert Held(spread, spread).not_worse


def test_a_configuration_stands_in_the_grid_once() -> None:
    assert len({(config.learner, config.settings) for config in GRID}) == len(GRID)


def test_what_a_peer_did_is_kept_by_everything_that_went_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = prepare(_raw(20), 0)
    run = Run(Config("vw", "--squarecb"), rows)
    others = [
        Run(Config("vw", "--regcbopt"), rows),
        Run(Config("vw", "--squarecb", 10), rows),
        Run(run.config, prepare(_raw(20), 1)),
    ]
    assert len({run.file, *(other.file for other in others)}) == 4
    assert run.wrong() is None
    run.file.parent.mkdir(parents=True)
    np.save(run.file, rows.y[:15])
    wrong = run.wrong()
    assert wrong is not None and len(wrong) == 15 and not wrong.any()
    finish([run])  # nothing to do: no environment is made
    assert [path.name for path in (tmp_path / "opportune").iterdir()] == ["bench-learning"]


def test_learners_that_cannot_be_installed_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(PeersMissing, match="there is no environment with vowpalwabbit"):
        interpreter(make=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(PeersMissing, match=r"could not be installed: .*No matching distribution"):
        interpreter(make=True)
    with pytest.raises(PeersMissing, match="there is no environment"):  # what is half-made does not count
        interpreter(make=False)


@pytest.mark.parametrize("learner", ["vw -q sa --squarecb", "mabwiser-linucb alpha=0.3", "river-linucb alpha=1 beta=1"])
def test_a_peer_learns_what_a_row_says(learner: str, tmp_path: Path) -> None:
    """The worker itself, where its environment is."""
    try:
        python = interpreter(make=False)
    except PeersMissing as missing:
        pytest.skip(str(missing))
    x = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    name, _, settings = learner.partition(" ")
    job = {"learner": name, "settings": settings, "set": str(tmp_path / "set.npz"), "classes": 2, "rows": 300}
    job |= {"seed": 0, "single_rows": 100, "batch_rows": 10, "out": str(tmp_path / "out.npy")}
    script = ROOT / "bench" / "peers" / "worker.py"
    done = subprocess.run(
        [str(python), "-I", str(script)], input=json.dumps(job) + "\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    actions = np.load(tmp_path / "out.npy")
    assert len(actions) == 300
    assert json.loads(done.stdout)["loss"] == pytest.approx((actions != y[:300]).mean())
    assert (actions != y[:300])[150:].mean() < 0.3


@needs_data
def test_hillstrom_is_read_as_its_notes_say() -> None:
    assert DATA is not None
    found = campaigns.hillstrom(DATA)
    assert np.bincount(found.arm).tolist() == [21_306, 21_307, 21_387]
    visits = [float(found.visit[found.arm == arm].mean()) for arm in (1, 2, 0)]
    assert visits == pytest.approx([0.1828, 0.1514, 0.1062], abs=1e-4)
    assert found.spend[found.arm == 1].mean() == pytest.approx(1.4226, abs=1e-4)


@needs_data
def test_bank_calls_are_in_order_and_without_what_is_known_afterwards() -> None:
    assert DATA is not None
    found = campaigns.bank(DATA)
    assert (len(found.yes), found.yes.sum()) == (41_188, 4_640)
    assert (found.yes[:4_118].mean(), found.yes[-4_118:].mean()) == pytest.approx((0.028, 0.459), abs=2e-3)
    assert found.context.numbers.shape[1] + found.context.codes.shape[1] == 19  # of 20: all but duration


@needs_data
def test_starbucks_offers_were_given_as_its_notes_say() -> None:
    assert DATA is not None
    found = campaigns.starbucks(DATA)
    assert len(found.arm) == 8_621 * 6
    shares = np.bincount(found.arm) / len(found.arm)
    assert shares.tolist() == pytest.approx(campaigns.STARBUCKS_PROPENSITIES, abs=0.005)
    starts = np.array(campaigns.STARBUCKS_WAVES_H)[found.wave]
    paid = np.isfinite(found.paid_h)
    assert (found.paid[~paid] == 0.0).all() and (found.arm[paid] != campaigns.STARBUCKS_NONE).all()
    assert (found.paid_h - starts)[paid].min() >= 0 and (found.paid_h - starts)[paid].max() <= 240
    assert (found.net_by(10_000) == found.net).all()
    late = paid & (found.paid_h > starts + campaigns.SPEND_WINDOW_H)  # these are corrected
    assert late.mean() == pytest.approx(0.11, abs=0.01)
    assert found.net[found.arm == 0].mean() == pytest.approx(6.6, abs=0.1)
    assert found.net.max() <= campaigns.SPEND_MAX


@needs_data
def test_sets_are_read_as_their_index_says() -> None:
    assert DATA is not None
    raw = bakeoff.load(DATA, "keel_crx")
    assert (raw.numeric.shape, raw.is_numeric.sum(), raw.classes) == ((653, 15), 6, 2)
    assert max(np.bincount(raw.y)) / 653 == pytest.approx(0.5467, abs=1e-4)
    assert len(bakeoff.set_names(DATA)) == 24


COLD_START = {
    f"learning.cold_start_{how}{what}"
    for how in ("", "points_")
    for what in ("decisions_to_90", "value_vs_known", "value_vs_never")
}


def test_a_new_offer_among_mature_ones_hurts_hardly_and_points_help_it() -> None:
    report = Report("learning", "a test")
    coldstart.run(report, small=True)
    found = {row.metric: row.value for row in report.rows}
    assert set(found) == COLD_START
    assert found["learning.cold_start_value_vs_never"] > 0.97
    assert found["learning.cold_start_points_value_vs_known"] > 0.93


@needs_data
def test_a_small_run_of_learning_needs_no_other_learner(tmp_path: Path) -> None:
    found = _bench("learning", tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    rows = {row["metric"]: row for row in found["rows"]}
    assert set(rows) == {
        "learning.bakeoff_loss",
        "learning.hillstrom_decisions_to_90",
        "learning.hillstrom_spend_vs_best_arm",
        "learning.starbucks_net_vs_best_arm",
        "learning.starbucks_last_wave_net",
        "learning.bank_value_vs_refit",
        "learning.bank_calibration",
        *COLD_START,
    }
    assert all(np.isfinite(row["value"]) and row["against"] for row in rows.values())
    assert any("other learners are left out" in note for note in found["notes"])
    assert [path.name for path in (tmp_path / "cache" / "opportune").iterdir()] == ["bench-learning"]


def test_without_data_learning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import learning

    monkeypatch.setattr(learning, "data_folder", lambda: None)
    report = learning.run(small=True)
    assert not report.rows
    assert "not in ../shared/data" in report.notes[0]


def test_a_small_run_of_models_needs_no_other_learner(tmp_path: Path) -> None:
    found = _bench("models", tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    metrics = [row["metric"] for row in found["rows"]]
    assert metrics == ["models.lessons_per_s", "models.score_us_100", "models.score_us_1000"]
    assert all(row["value"] > 0 and row["against"] for row in found["rows"])
    assert not (tmp_path / "cache").exists()


def _raw(rows: int) -> RawSet:
    generator = np.random.default_rng(9)
    is_numeric = np.array([True, True, False])
    numeric = np.where(is_numeric, generator.normal(size=(rows, 3)), np.nan)
    numeric[generator.random(rows) < 0.2, 1] = np.nan
    categorical = np.where(is_numeric, -1, generator.integers(-1, 6, (rows, 3)))
    return RawSet("made", numeric, categorical, is_numeric, generator.integers(0, 2, rows), 2)


class _ByRow:
    """Picks the action that the row names."""

    def decide(self, x: np.ndarray) -> Decided:
        return Decided(x[:, 0].astype(np.int64), np.ones(len(x)))

    def learn(
        self, x: np.ndarray, actions: np.ndarray, rewards: np.ndarray, responses: np.ndarray | None = None
    ) -> None:
        assert np.array_equal(x[:, 0], actions)


class _Noting:
    """Notes that no batch is decided before the last was learnt."""

    decided = learnt = 0

    def decide(self, x: np.ndarray) -> Decided:
        assert self.decided == self.learnt
        self.decided += len(x)
        return Decided(np.zeros(len(x), np.int64), np.ones(len(x)))

    def learn(self, x: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        self.learnt += len(actions)


def _bench(name: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", name, "--small", "--json", str(folder / "out.json")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found
