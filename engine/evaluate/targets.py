"""Target policies: what each would have done in the decisions of a log.

    logged           what the log did: its own mean, to check the rest against
    uniform          every action that was possible, equally likely
    nothing          never an offer
    constant:OFFER   that offer, over the decisions in which it was possible
    greedy           the best one, as the other customers' outcomes teach
    FILE             a configuration: its offers, rules, values, levers and exploration
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.catalogue import Catalogue
from engine.errors import InvalidArgument
from engine.evaluate.enginelog import EngineLog
from engine.evaluate.log import NOTHING, Bools, Floats, Ints, Log

Shares = Callable[[Ints, int, Floats], Floats]
"""(rows, K) how likely each action is; of rows, their fold and the rewards (rows, K) that a model predicts."""


@dataclass(frozen=True)
class Target:
    """A policy to evaluate on one log."""

    name: str
    recomputed: str
    """What of it is computed anew, and from what."""
    shares: Shares | None
    """None: what the log did."""
    applies: Bools | None = None
    """(n,) the decisions that it is evaluated on; None: all."""


def configuration_of(policy: str) -> Catalogue | None:
    """The configuration that a policy names, None if it is one of the words. Raises ConfigError, InvalidArgument."""
    if policy in ("logged", "uniform", "nothing", "greedy") or policy.startswith("constant:"):
        return None
    path = Path(policy)
    if not path.is_file():
        raise InvalidArgument(
            f"--policy {policy}: neither a file nor one of logged, uniform, nothing, greedy, constant:OFFER"
        )
    return Catalogue.of_file(path)


def target_of(policy: str, log: Log, configuration: Catalogue | None) -> Target:
    """The policy on this log. Raises InvalidArgument if the log does not know what it needs."""
    if configuration is not None:
        return _configured(policy, log, configuration)
    if policy == "logged":
        return Target(policy, "nothing: it is what the log did", None)
    if policy == "uniform":
        recomputed = "what was possible; each action is equally likely"
        return Target(policy, recomputed, lambda rows, _, __: even(log.possible(rows)))
    if policy == "greedy":
        return _greedy(log)
    action = NOTHING if policy == "nothing" else policy.removeprefix("constant:")
    if action not in log.names:
        shown = ", ".join(name for name in log.names[:20] if name != NOTHING)
        raise InvalidArgument(f"--policy {policy}: {action!r} is not in {log.title}, expected one of: {shown}")
    column = log.names.index(action)
    possible = np.concatenate([log.possible(part)[:, column] for part in chunks(np.arange(len(log)))])
    if not isinstance(log, EngineLog):
        possible[:] = True
    if not possible.any():
        raise InvalidArgument(f"--policy {policy}: {action!r} was possible in no decision of {log.title}")

    def always(rows: Ints, _: int, __: Floats) -> Floats:
        shares = np.zeros((len(rows), len(log.names)))
        shares[:, column] = 1.0
        return shares

    recomputed = "where it was possible, it is what is done; other decisions are left out"
    return Target(policy, recomputed, always, possible)


def _configured(policy: str, log: Log, configuration: Catalogue) -> Target:
    if not isinstance(log, EngineLog):
        raise InvalidArgument(f"--policy {policy}: a configuration needs the engine's own log, {log.title} is a file")
    recomputed = (
        "eligibility from the rules, channel and time of the record; acceptance from what other customers teach, "
        "without forgetting; values, levers, costs and exploration from the configuration. Features, caps and "
        "identities are as they were"
    )
    return Target(policy, recomputed, lambda rows, fold, _: log.configured(configuration, rows, fold))


def _greedy(log: Log) -> Target:
    if isinstance(log, EngineLog):
        newest = log.catalogues[int(log.versions[np.argmax(log.times_ms)])]
        recomputed = (
            f"the offer with the highest score in configuration {newest.version}, acceptance from what other customers "
            "teach, without forgetting"
        )
        return Target("greedy", recomputed, lambda rows, fold, _: log.configured(newest, rows, fold, greedy=True))

    def best(rows: Ints, _: int, predicted: Floats) -> Floats:
        shares = np.zeros(predicted.shape)
        among = np.where(log.possible(rows), predicted, -np.inf)
        shares[np.arange(len(rows)), among.argmax(axis=1)] = 1.0
        return shares

    return Target("greedy", "the action of which a model taught by other customers predicts most", best)


def even(possible: Bools) -> Floats:
    """Each of what is possible, equally likely."""
    shares: Floats = possible / np.maximum(possible.sum(axis=1, keepdims=True), 1)
    return shares


def chunks(rows: Ints, size: int = 16_384) -> list[Ints]:
    """Rows in parts, so that no matrix of rows and actions becomes large."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
