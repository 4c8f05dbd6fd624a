"""Keeps the served policy current: snapshots that the learner pushes are swapped in whole."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from engine import metrics
from engine.decider import Decider
from engine.learner import prior_policy
from engine.policyfacts import PolicyFacts
from engine.serving import Serving
from engine.store.base import PolicyBoard, StoreError
from models import CheckpointError

log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
_BLOCK_MS: Final = 1_000


class PolicyWatch:
    """Follows the policy board for one decider."""

    def __init__(self, decider: Decider, board: PolicyBoard) -> None:
        self._decider = decider
        self._board = board
        self._seen: str | None = None

    async def run(self) -> None:
        """Follow until cancelled. A store that is away is waited for; the policy in service stays."""
        while True:
            try:
                await self.step(_BLOCK_MS)
            except StoreError as error:
                log.warning("the policy board is away, trying again: %s", error)
                self._seen = None
                await asyncio.sleep(_PAUSE_S)
            except Exception:
                # Whatever it is, the policy in service must not stand still for good because of it.
                log.exception("the policy could not be followed, trying again")
                self._seen = None
                await asyncio.sleep(_PAUSE_S)

    async def step(self, block_ms: int) -> None:
        """Load what changed, or everything at first. Raises StoreError."""
        if self._seen is None:
            # Ask where the stream stands before loading: what comes after is then seen as a change.
            changes = await self._board.policy_changes("", 0)
            seen = changes[-1][0] if changes else "0-0"
            await self._load(None)
            self._seen = seen
            return
        changes = await self._board.policy_changes(self._seen, block_ms)
        if changes:
            await self._load(sorted({offer for _, offers in changes for offer in offers}))
            self._seen = changes[-1][0]

    async def follow(self, serving: Serving, swap: Callable[[], None]) -> None:
        """Give another version of the catalogue the policy, and then, without a moment between, swap it in."""
        head, beliefs = await self._board.read_policy(None)
        if head is not None:
            self._put(serving, head, beliefs)
        swap()

    async def _load(self, offers: list[str] | None) -> None:
        head, beliefs = await self._board.read_policy(offers)
        if head is not None:
            self._put(self._decider.serving, head, beliefs)

    def _put(self, serving: Serving, head: bytes, beliefs: Mapping[str, bytes]) -> None:
        catalogue = serving.catalogue
        try:
            facts = orjson.loads(head)
            if facts["transform"] != serving.policy.transform_version:
                # Learnt for another configuration: the prior serves until the learner has pushed one for this.
                log.info("the policy on the board is for transform %08x; the prior serves", facts["transform"])
                return
            told = PolicyFacts.read(facts, catalogue.ladder.ids)
            if catalogue.sharing.names:
                rivals = catalogue.sharing.renewed(serving.facts.rivals, prior_policy(catalogue), beliefs)
                told = replace(told, rivals=rivals)
            serving.policy = serving.policy.replaced(beliefs, facts["version"])
            serving.facts = told
            serving.policy_known = True
            self._decider.kept.keep(serving.policy, beliefs.keys(), facts.get("average"), told.curve)
        except (CheckpointError, orjson.JSONDecodeError, KeyError) as error:
            log.error("the policy cannot be loaded, the one in service stays: %s", error)
            serving.policy_known = serving.policy.version > 0
            return
        # The learner has no port of its own: its figures travel with its policy.
        for gauge, name in ((metrics.LESSONS, "lessons"), (metrics.LESSONS_LOST, "lost"), (metrics.LET_GO, "let_go")):
            gauge.set(facts.get(name, 0))
        exploration = facts.get("exploration", {})
        _show_exploration(exploration if exploration.get("config") == catalogue.version else {})
        drift = facts.get("drift", {})
        _show_drift(drift.get("offers", []) if drift.get("config") == catalogue.version else [])
        metrics.POLICY_VERSION.set(serving.policy.version)
        metrics.POLICY_SWAPPED.set(time.time())


def _show_exploration(figures: Mapping[str, Any]) -> None:
    """Show what the learner's `ExplorationWatch.figures` told."""
    share = figures.get("share")
    metrics.EXPLORATION_SHARE.set(float("nan") if share is None else share)
    metrics.EXPLORATION_STOPPED.set(bool(figures.get("stopped")))
    names = figures.get("offers", [])
    metrics.OFFERS_NOT_EXPLORED.set(len(names))
    metrics.OFFER_NOT_EXPLORED.clear()
    for name in names:
        metrics.OFFER_NOT_EXPLORED.labels(name).set(1)


def _show_drift(offers: list[Mapping[str, Any]]) -> None:
    """Show what the learner's `DriftWatch.figures` told."""
    recent = [found for found in offers if found["recent"]]
    metrics.OFFERS_DRIFTED.set(len(recent))
    metrics.OFFER_DRIFT.clear()
    for found in recent:
        metrics.OFFER_DRIFT.labels(found["offer"]).set(found["after"] - found["before"])
