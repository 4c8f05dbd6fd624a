"""How fast other learners score and learn: run by its path, in an environment that has them and nothing of ours.

    python -I speed.py '{"columns": 64, "offers": [100, 1000], "batch": 16, "lessons": 1000, "seconds": 1.0}'

Prints one line of JSON: by learner, "score_us" by count of offers, in µs a decision, and "lessons_per_s" with the first
count of offers. Each figure is the fastest of the rounds that fit into `seconds`, and of three at least. One thread.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np  # noqa: E402  after what it reads when it is imported
import vowpalwabbit  # noqa: E402
from mabwiser.mab import MAB, LearningPolicy  # noqa: E402

ROUNDS_MIN = 3


def fastest_s(work: Callable[[], Any], seconds: float) -> float:
    """The shortest time a round of this took."""
    took: list[float] = []
    end_s = time.perf_counter() + seconds
    while len(took) < ROUNDS_MIN or time.perf_counter() < end_s:
        start_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - start_s)
    return min(took)


def vw(x: Any, actions: Any, rewards: Any, offers: int, batch: int, seconds: float) -> tuple[float, float]:
    """µs a decision, its draw included, and lessons a second of Vowpal Wabbit; text is made before the clock starts."""
    learner = vowpalwabbit.Workspace("--cb_explore_adf --squarecb -q sa --quiet")
    shared = ["shared |s " + " ".join(f"{at}:{value:.4g}" for at, value in enumerate(row)) for row in x.tolist()]
    plain = [f"|a {offer}" for offer in range(offers)]
    asked = [[line, *plain] for line in shared]
    taught = []
    for example, action, reward in zip(asked, actions.tolist(), rewards.tolist(), strict=True):
        labelled = list(example)
        labelled[1 + action] = f"0:{1 - reward}:{1 / offers} {plain[action]}"
        taught.append(labelled)
    for example in taught[:batch]:
        learner.learn(example)
    draws = np.random.default_rng(0)

    def decide() -> None:
        for example in asked[:batch]:
            shares = np.cumsum(learner.predict(example))
            np.searchsorted(shares, draws.random() * shares[-1])

    def learn() -> None:
        for example in taught[: 4 * batch]:
            learner.learn(example)

    found = fastest_s(decide, seconds) / batch * 1e6, 4 * batch / fastest_s(learn, seconds)
    learner.finish()
    return found


def mabwiser(policy: Any, x: Any, actions: Any, rewards: Any, offers: int, batch: int, seconds: float) -> Any:
    """µs a decision and lessons a second of MABWiser, taught all lessons in one batch."""
    learner = MAB(list(range(offers)), policy)
    learner.fit(actions, rewards, x)
    score_s = fastest_s(lambda: learner.predict(x[:batch]), seconds)
    learn_s = fastest_s(lambda: learner.partial_fit(actions, rewards, x), seconds)
    return score_s / batch * 1e6, len(x) / learn_s


def main() -> None:
    """Measure, print."""
    asked = json.loads(sys.argv[1])
    batch, seconds = asked["batch"], asked["seconds"]
    dice = np.random.default_rng(0)
    x = dice.normal(size=(asked["lessons"], asked["columns"]))
    rewards = (dice.random(len(x)) < 0.1).astype(float)
    learners: dict[str, Callable[..., Any]] = {
        "Vowpal Wabbit": vw,
        "MABWiser LinUCB": lambda *given: mabwiser(LearningPolicy.LinUCB(alpha=1.0), *given),
        "MABWiser LinTS": lambda *given: mabwiser(LearningPolicy.LinTS(alpha=1.0), *given),
    }
    found: dict[str, Any] = {}
    for name, measure in learners.items():
        found[name] = {"score_us": {}}
        for offers in asked["offers"]:
            actions = dice.integers(0, offers, len(x))
            score_us, lessons_per_s = measure(x, actions, rewards, offers, batch, seconds)
            found[name]["score_us"][str(offers)] = score_us
            found[name].setdefault("lessons_per_s", lessons_per_s)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
