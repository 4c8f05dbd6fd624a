"""How fast the learning core is alone: no server, no store, one thread.

- `models.lessons_per_s`: lessons of 64 columns over 100 offers, a batch at a time: added to the sums, the beliefs of
  all offers touched fitted anew, and a policy that serves them.
- `models.score_us_100`, `models.score_us_1000`: a decision among so many offers: scored and one drawn with its exact
  propensity, in batches of 16.

Other libraries are measured right after, in their own environment, on rows of the same shape; the ratio is to the
fastest of them, above 1 where ours is faster.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.peers.environment import PeersMissing, interpreter
from bench.report import Report
from models import Policy, PosteriorOptions, Statistics, choose, dice, fit, pack_offer
from models.transform import STEPS

COLUMNS: Final = 64
BATCH: Final = 16
LESSONS: Final = 1_000
OFFERS: Final = (100, 1_000)
ROUNDS_MIN: Final = 3
PEERS_S_MAX: Final = 300
_VERSION: Final = 1


def run(*, small: bool) -> Report:
    """Run it and return what was found."""
    report = Report("models", "this process")
    seconds = 0.2 if small else 2.0
    generator = np.random.default_rng(0)
    x = generator.integers(-STEPS, STEPS + 1, (LESSONS, COLUMNS)).astype(np.int8)
    lessons = _lessons_per_s(x, OFFERS[0], generator, seconds)
    scores = {offers: _score_us(x, offers, generator, seconds) for offers in OFFERS}
    peers: dict[str, Any] = {}
    if small:
        report.notes.append("other learners are left out: the full benchmark runs them")
    else:
        try:
            peers = _peers(seconds)
        except PeersMissing as missing:
            report.notes.append(f"other learners are left out: {missing}")
    theirs = {name: found["lessons_per_s"] for name, found in peers.items()}
    what = f"{OFFERS[0]} offers, {COLUMNS} columns, batches of {LESSONS:,}"
    ratio = lessons / max(theirs.values()) if theirs else None
    report.add("models.lessons_per_s", lessons, "lessons/s", what + _told(theirs), ratio)
    for offers, took_us in scores.items():
        theirs = {name: found["score_us"][str(offers)] for name, found in peers.items()}
        what = f"{offers:,} offers, {COLUMNS} columns, batches of {BATCH}"
        ratio = min(theirs.values()) / took_us if theirs else None
        report.add(f"models.score_us_{offers}", took_us, "µs a decision", what + _told(theirs), ratio)
    return report


def _told(theirs: dict[str, float]) -> str:
    return "".join(f"; {name} {value:,.0f}" for name, value in theirs.items())


def _lessons_per_s(x: npt.NDArray[np.int8], offers: int, generator: np.random.Generator, seconds: float) -> float:
    names = [f"{offer:04d}" for offer in range(offers)]
    options = PosteriorOptions()
    stats = Statistics(COLUMNS, _VERSION)
    policies = [Policy.empty(names, COLUMNS, options, _VERSION)]
    lessons = [names[offer] for offer in generator.integers(0, offers, len(x))]
    targets = 100 * (generator.random(len(x)) < 0.1).astype(np.int64)
    periods, signs = [0] * len(x), [1] * len(x)

    def learn() -> None:
        touched = stats.learn(lessons, periods, x, targets, signs)
        beliefs = fit(stats, sorted(touched), 0, options)
        changes = {offer: pack_offer(belief) for offer, belief in beliefs.items()}
        policies[0] = policies[0].replaced(changes, version=policies[0].version + 1)

    return len(x) / _fastest_s(learn, seconds)


def _score_us(x: npt.NDArray[np.int8], offers: int, generator: np.random.Generator, seconds: float) -> float:
    names = [f"{offer:04d}" for offer in range(offers)]
    options = PosteriorOptions()
    stats = Statistics(COLUMNS, _VERSION)
    lessons = [names[offer] for offer in generator.integers(0, offers, len(x))]
    targets = 100 * (generator.random(len(x)) < 0.1).astype(np.int64)
    touched = stats.learn(lessons, [0] * len(x), x, targets, [1] * len(x))
    changes = {offer: pack_offer(belief) for offer, belief in fit(stats, sorted(touched), 0, options).items()}
    policy = Policy.empty(names, COLUMNS, options, _VERSION).replaced(changes, version=1)
    rows, eligible, limits = x[:BATCH], np.ones((BATCH, offers), np.bool_), np.ones(BATCH, np.int64)
    seeds = np.arange(BATCH, dtype=np.uint64)

    def decide() -> None:
        mean, sd = policy.score(rows)
        choose(mean, sd, eligible, limits, dice(seeds, 1))

    decide()
    return _fastest_s(decide, seconds) / BATCH * 1e6


def _fastest_s(work: Callable[[], None], seconds: float) -> float:
    """The shortest time a round of this took, of those that fit into so many seconds and of three at least."""
    took: list[float] = []
    end_s = time.perf_counter() + seconds
    while len(took) < ROUNDS_MIN or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - start_s)
    return min(took)


def _peers(seconds: float) -> dict[str, Any]:
    """What the other libraries took. Raises PeersMissing."""
    asked = {"columns": COLUMNS, "offers": OFFERS, "batch": BATCH, "lessons": LESSONS, "seconds": seconds}
    script = Path(__file__).parent / "peers" / "speed.py"
    command = [str(interpreter(make=True)), "-I", str(script), json.dumps(asked)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PEERS_S_MAX)
    except subprocess.CalledProcessError as error:
        raise PeersMissing((error.stderr.strip().splitlines() or ["no reason given"])[-1]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeersMissing(str(error)) from error
    found: dict[str, Any] = json.loads(done.stdout)
    return found
