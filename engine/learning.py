"""Learning: the decision log into the policy that the next decision is served with.

One round: read new entries, attribute them, fetch the records of the decisions that teach something, teach, and push a
snapshot of the offers that changed at most every SNAPSHOT_INTERVAL_MS. A checkpoint with the positions read is written
now and then and at the end; after a crash the log is read again from there, and the sums come out the same.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import orjson

from engine.attribution import Forgotten
from engine.catalogue import Catalogue
from engine.challengers import Challengers
from engine.explain.archive import keep_in_store
from engine.explorewatch import ExplorationWatch
from engine.forget.unlearning import Unlearning, outlived
from engine.learner import Due, Former, Learner, checkpoint_prefix
from engine.limits import (
    CHECKPOINT_INTERVAL_MS,
    LEARN_BATCH_MAX,
    LEARN_BLOCK_MS,
    LEARN_PACE_MS,
    POLICY_KEPT_INTERVAL_MS,
    SNAPSHOT_INTERVAL_MS,
)
from engine.store import keys
from engine.store.base import Store, StoreError
from engine.tuning import Tuning
from engine.versions_former import former_offers
from models import CheckpointError

log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
_BEHIND_SNAPSHOT_MS: Final = 2_000
_WHOLE_EVERY: Final = 20
"""Every so many snapshots all offers are refreshed: their prior leans on the offers that changed. Where that takes long
it is done more rarely, so that it takes a twentieth of the time at most."""
_WITHOUT: Final = (
    f"restore the store, or delete its key {keys.LEARNER.decode()!r}: without it everything is learnt anew from the "
    "decision log, as far as that is kept"
)


class Learning:
    """Learns from one store's decision log."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        *,
        batch_max: int = LEARN_BATCH_MAX,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._batch_max = batch_max
        self._now_s = now_s
        self._learner: Learner | None = None
        self._stopping = False
        self._snapshot_s = self._checkpoint_s = now_s()
        self._checkpoint_took_s = 0.0
        self._snapshots = 0
        self._whole_s = now_s()
        self._whole_took_s = 0.0
        self._kept_s: float | None = None
        self._keeps_alone = False
        """Whether the policies kept for explaining rest on people who were forgotten since."""
        self._dirty = False
        self._let_go = 0
        self._exploring = ExplorationWatch(catalogue)
        self._challengers = Challengers(catalogue, now_s)
        self._tuning = Tuning(catalogue)
        self._unlearning = Unlearning(store, catalogue.terms)
        self._former: dict[int, Former] | None = None
        """Offers of earlier versions, as they were found last."""

    def stop(self) -> None:
        """End `run` after the batch in hand."""
        self._stopping = True

    async def learner(self) -> Learner:
        """The learner, restored from the checkpoint at first. Raises StoreError or CheckpointError."""
        if self._learner is None:
            fields = await self._store.load_checkpoint()
            try:
                self._former = await former_offers(self._store, self._catalogue)
            except StoreError:
                # The node that has the history may be away on its own: what others teach is learnt all the same.
                if self._former is None:
                    raise
            try:
                learner = Learner.restore(self._catalogue, self._store.partitions, fields, self._former)
            except CheckpointError as error:
                raise CheckpointError(f"{error}; {_WITHOUT}") from error
            self._unlearning.terms = learner.terms
            if fields and not any(name.startswith(checkpoint_prefix(self._catalogue)) for name in fields):
                log.warning("what was learnt is of other inputs or another learning.period: learning anew from the log")
            if outlived(learner.offsets, await self._store.forgets()):
                log.error("the checkpoint is older than people who were forgotten since: learning anew from the log")
                learner = learner.anew()
                self._keeps_alone = True
            else:
                self._challengers.restore(fields)
            self._unlearning.owes = True
            self._learner = learner
            self._tuning.drop()
            # Snapshots pushed after the checkpoint have taken their numbers: a version never means two policies.
            head, _ = await self._store.read_policy([])
            if head is not None:
                facts = orjson.loads(head)
                self._learner.policy_version = max(self._learner.policy_version, facts["version"])
                self._exploring.resume(facts.get("exploration", {}))
                self._tuning.resume(facts.get("tuning", {}))
        return self._learner

    async def run(self) -> None:
        """Learn until `stop`, then leave a snapshot and a checkpoint. A store that is away is waited for."""
        while not self._stopping:
            started_s = self._now_s()
            try:
                taken = await self.round(LEARN_BLOCK_MS)
                if 0 < taken < self._batch_max:
                    # Waking up for every decision would take the core from the server that makes them: 13 µs a decision
                    # one by one, 6 in batches.
                    await asyncio.sleep(max(0.0, LEARN_PACE_MS / 1e3 - (self._now_s() - started_s)))
            except StoreError as error:
                log.warning("the store is away, trying again: %s", error)
                # Begin again from the checkpoint: entries that were read may not have been taught.
                self._learner = None
                await asyncio.sleep(_PAUSE_S)
        if self._learner is None:
            return  # what the store has is newer than what would be read from it
        try:
            await self.publish()
            await self.save()
        except StoreError as error:
            log.warning("no last checkpoint, the log will be read again from the one before: %s", error)

    async def round(self, block_ms: int) -> int:
        """One round; returns how many entries were taken in. Raises StoreError."""
        learner = await self.learner()
        batches = await self._store.read_decisions(learner.offsets, self._batch_max, block_ms)
        due: list[Due] = []
        for partition, entries in batches.items():
            due += learner.absorb(partition, entries)
            self._exploring.observe(partition, entries)
            self._challengers.observe(partition, entries)
            self._tuning.observe(partition, entries)
        if due:
            await self._teach(learner, due)
        clocks_ms = [attribution.clock_ms for attribution in learner.attributions]
        self._exploring.judge()
        self._challengers.judge(clocks_ms)
        self._tuning.judge(clocks_ms)
        self._tuning.begin(learner)
        self._dirty |= bool(batches)
        if forgotten := learner.taken_forgotten():
            await self._unlearn(learner, forgotten)
        let_go = sum(attribution.overflowed for attribution in learner.attributions)
        if let_go > self._let_go:
            log.warning("%d offers are no longer followed, more than can be kept until their windows close", let_go)
            self._let_go = let_go * 2  # told again when it has doubled
        told = *self._exploring.lines(), *learner.drift.lines(), *self._challengers.lines(), *self._tuning.lines()
        for level, line in told:
            log.log(level, line)
        now_s = self._now_s()
        # Behind a long log (after a crash) the policy in service is newer than what was read so far: catch up first.
        caught_up = all(len(entries) < self._batch_max for entries in batches.values())
        wait_ms = SNAPSHOT_INTERVAL_MS if caught_up else _BEHIND_SNAPSHOT_MS
        news = learner.has_news or self._exploring.has_news or self._tuning.has_news
        if news and (now_s - self._snapshot_s) * 1e3 >= wait_ms:
            await self.publish()
            self._snapshot_s = now_s
        # A large checkpoint is written more rarely, so that it takes a twentieth of the time at most.
        wait_s = max(CHECKPOINT_INTERVAL_MS / 1e3, 20 * self._checkpoint_took_s)
        if self._dirty and now_s - self._checkpoint_s >= wait_s:
            await self.save()
        return sum(map(len, batches.values()))

    async def _unlearn(self, learner: Learner, forgotten: Sequence[tuple[int, Forgotten]]) -> None:
        """Take back the rest, and put what is then known in the place of what was, everywhere."""
        due = await self._unlearning.long_gone(forgotten)
        if due:
            await self._teach(learner, due)
        if due or any(entry.lessons for _, entry in forgotten):
            learner.believe_anew()
            self._challengers.believe_anew()
            self._keeps_alone = True
        await self.publish()
        await self.save()

    async def _teach(self, learner: Learner, due: Sequence[Due]) -> None:
        places = list(dict.fromkeys(item.position for item in due))
        records = await self._store.entries(places)
        found = dict(zip(places, records, strict=True))
        learner.teach(due, found)
        self._challengers.learn(due, found)
        self._tuning.learn(due, found)

    async def publish(self) -> None:
        """Push a snapshot if there is news. Raises StoreError."""
        learner = await self.learner()
        if learner.has_news or self._exploring.has_news or self._tuning.has_news or self._keeps_alone:
            started_s = self._now_s()
            kept_long_ago = self._kept_s is None or (started_s - self._kept_s) * 1e3 >= POLICY_KEPT_INTERVAL_MS
            keep = kept_long_ago or self._keeps_alone
            rested = started_s - self._whole_s >= _WHOLE_EVERY * self._whole_took_s
            whole = keep or (rested and self._snapshots >= _WHOLE_EVERY)
            head, offers = learner.snapshot(whole=whole)
            serving = self._challengers.publish(learner, offers, whole=whole)
            self._tuning.renew(learner, whole=whole)
            beside = {"exploration": self._exploring.figures(), "challengers": self._challengers.figures()}
            if self._tuning.active:
                beside["tuning"] = self._tuning.figures()
            head = orjson.dumps({**orjson.loads(head), **beside})
            if whole:
                self._snapshots, self._whole_s = 0, self._now_s()
                self._whole_took_s = self._whole_s - started_s
            self._snapshots += 1
            self._dirty = True
            await self._store.publish_policy(head, offers | serving)
            if keep:
                self._kept_s = started_s
                try:
                    await keep_in_store(self._store, self._catalogue, head, offers, alone=self._keeps_alone)
                    self._keeps_alone = False
                except StoreError as error:
                    if self._keeps_alone:
                        raise
                    # Explanations of old decisions are less exact without it; learning does not depend on it.
                    log.warning("policy %d was not kept for explaining: %s", learner.policy_version, error)

    async def save(self) -> None:
        """Write a checkpoint. Raises StoreError."""
        learner = await self.learner()
        started_s = self._now_s()
        fields, removed = learner.checkpoint()
        measured, gone = self._challengers.checkpoint()
        await self._store.save_checkpoint(fields | measured, [*removed, *gone])
        await self._unlearning.finish(learner)
        self._checkpoint_s = self._now_s()
        self._checkpoint_took_s = self._checkpoint_s - started_s
        self._dirty = False
