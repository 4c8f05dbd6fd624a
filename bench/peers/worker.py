"""The learners' side: run by its path, in an environment that has them and nothing of ours.

    python -I worker.py          a job a line on stdin, as JSON; an answer a line on stdout

A job: {"learner", "settings", "set": an .npz with x (n, d) and y (n,), "classes", "rows", "seed", "single_rows",
"batch_rows", "out": where the actions go, as .npy}. The answer: {"loss", "cpu_s"}. The action of a row is drawn from
what the learner knew before it, from the probabilities the learner itself gives; then it is told the reward of that
action. Everything is done in one thread. Ends with stdin.
"""

import json
import os
import sys
import time
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np  # noqa: E402  after what it reads when it is imported


def vw(settings: str, x: Any, y: Any, classes: int, seed: int, _job: dict[str, Any]) -> list[int]:
    """Vowpal Wabbit: the row as shared features s, each action as a feature a."""
    import vowpalwabbit

    draws = np.random.default_rng(seed).random(len(x)).tolist()
    learner = vowpalwabbit.Workspace(f"--cb_explore_adf {settings} --random_seed {seed + 1} --quiet")
    lines = []
    for row in x:
        at = np.flatnonzero(row)
        pairs = zip(at.tolist(), row[at].tolist(), strict=True)
        lines.append("shared |s " + " ".join(f"{column}:{value:.6g}" for column, value in pairs))
    plain = [f"|a {action}" for action in range(classes)]
    actions = []
    for line, label, draw in zip(lines, y.tolist(), draws, strict=True):
        example = [line, *plain]
        left = draw * sum(shares := learner.predict(example))
        action = 0
        for action, share in enumerate(shares):  # noqa: B007  the last one stands if rounding leaves some
            left -= share
            if left < 0 and share > 0:
                break
        example[1 + action] = f"0:{int(action != label)}:{shares[action]:.6g} {plain[action]}"
        learner.learn(example)
        actions.append(action)
    learner.finish()
    return actions


def mabwiser(settings: str, x: Any, y: Any, classes: int, seed: int, job: dict[str, Any]) -> list[int]:
    """LinUCB or LinTS of MABWiser, with a column of ones; the first row is answered at random."""
    from mabwiser.mab import MAB, LearningPolicy

    policies = {"mabwiser-linucb": LearningPolicy.LinUCB, "mabwiser-lints": LearningPolicy.LinTS}
    policy = policies[job["learner"]](alpha=_number(settings, "alpha"))
    learner = MAB(list(range(classes)), policy, seed=seed)
    x = np.hstack([x.astype(np.float64), np.ones((len(x), 1))])
    first = int(np.random.default_rng(seed).integers(classes))
    learner.fit([first], [float(first == y[0])], x[:1])
    actions = [first]
    while (at := len(actions)) < len(x):
        size = 1 if at < job["single_rows"] else job["batch_rows"]
        chosen = np.atleast_1d(learner.predict(x[at : at + size]))
        learner.partial_fit(chosen, (chosen == y[at : at + size]).astype(float), x[at : at + size])
        actions.extend(chosen.tolist())
    return actions


def river(settings: str, x: Any, y: Any, classes: int, seed: int, _job: dict[str, Any]) -> list[int]:
    """LinUCBDisjoint of River, with a column of ones; `burn_in` is left alone, it crosses the arguments (0.26.1)."""
    from river import bandit

    learner = bandit.LinUCBDisjoint(alpha=_number(settings, "alpha"), beta=_number(settings, "beta"), seed=seed)
    arms = list(range(classes))
    actions = []
    for row, label in zip(x.astype(np.float64).tolist(), y.tolist(), strict=True):
        context = dict(enumerate([*row, 1.0]))
        action = learner.pull(arms, context=context)
        learner.update(action, context, float(action == label))
        actions.append(action)
    return actions


LEARNERS = {"vw": vw, "mabwiser-linucb": mabwiser, "mabwiser-lints": mabwiser, "river-linucb": river}


def _number(settings: str, name: str) -> float:
    return float(dict(pair.split("=") for pair in settings.split())[name])


def main() -> None:
    """Do jobs until there are no more."""
    for line in sys.stdin:
        job = json.loads(line)
        with np.load(job["set"]) as found:
            x, y = found["x"][: job["rows"]], found["y"][: job["rows"]]
        start_s = time.process_time()
        run = LEARNERS[job["learner"]]
        actions = np.array(run(job["settings"], x, y, job["classes"], job["seed"], job), np.uint8)
        np.save(job["out"], actions)
        answer = {"loss": float(np.mean(actions != y)), "cpu_s": time.process_time() - start_s}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
