"""What the learner does beside its log when somebody is forgotten.

1. Most of what is to be taken back stands in its own state (engine.attribution). What decisions taught that it no
   longer follows, because they were too many or too old, only the log says: it is attributed once more.
2. The records go when the checkpoint without these lessons is durable, not before: after a crash in between the same
   lessons are taken back from the same older checkpoint, with the same records.
3. A checkpoint from before an erasure that was finished, out of a backup say, cannot be put right: the records are
   gone. It is not used; the log is learnt from the beginning, and the person is not in it.
"""

from collections.abc import Mapping, Sequence

from engine.attribution import Attribution, Forgotten, Lesson
from engine.forget.entry import ForgetRecord
from engine.learner import Due, Learner, checkpoint_prefix
from engine.limits import LEARN_BATCH_MAX
from engine.store.base import Forgets, Store
from engine.terms import Terms
from features import Offset


def outlived(offsets: Mapping[int, Offset], forgets: Mapping[int, Forgets]) -> bool:
    """Whether a checkpoint with these offsets has lessons that can no longer be taken back from it."""
    return any(Offset.ZERO < offsets[partition] < known.done for partition, known in forgets.items())


class Unlearning:
    """The part of forgetting that is the learner's, on one store."""

    def __init__(self, store: Store, terms: Mapping[int, Terms]) -> None:
        self._store = store
        self.terms = terms
        self.owes = True
        """Whether there may be records whose lessons the checkpoint no longer has."""
        self._taken_back: dict[tuple[int, Offset], int] = {}

    async def long_gone(self, forgotten: Sequence[tuple[int, Forgotten]]) -> list[Due]:
        """What is to be taken back of decisions that are no longer followed. Raises StoreError."""
        due: list[Due] = []
        for partition, entry in forgotten:
            lessons = await self._taught(partition, entry) if entry.unfollowed else []
            due += [Due(partition, lesson) for lesson in lessons]
            self._taken_back[partition, entry.at] = entry.lessons + len(lessons)
        self.owes |= bool(forgotten)
        return due

    async def _taught(self, partition: int, entry: Forgotten) -> list[Lesson]:
        """Lessons that take back what decisions taught, by the log up to the entry that forgets them."""
        found = await self._store.entries([(partition, at) for at in entry.unfollowed])
        there = {at for at, data in zip(entry.unfollowed, found, strict=True) if data is not None}
        if not there:
            return []
        # What comes before the first of them decides nothing: the oldest are let go first, and counted from the end.
        first = min(there)
        after = Offset(first.ms, first.seq - 1) if first.seq else Offset(first.ms - 1, 2**32 - 1)
        again, taught = Attribution(self.terms), dict[tuple[Offset, int], Lesson]()
        while after < entry.at:
            batch = (await self._store.read_decisions({partition: after}, LEARN_BATCH_MAX, 0)).get(partition)
            if not batch:
                break
            after = batch[-1].offset
            for lesson in again.absorb(item for item in batch if item.offset < entry.at):
                if lesson.decision in there:
                    taught[lesson.decision, lesson.rank] = lesson
        return [lesson.back for lesson in taught.values() if lesson.new is not None]

    async def finish(self, learner: Learner) -> None:
        """Remove the records of what the checkpoint, just written, has forgotten. Raises StoreError."""
        if not self.owes:
            return
        read_up_to = learner.offsets
        due = [
            (partition, at)
            for partition, known in (await self._store.forgets()).items()
            for at in known.pending
            if at <= read_up_to[partition]
        ]
        if due:
            # Sums of inputs that are no longer in use have these lessons, too. Nobody will take them out of there.
            own = checkpoint_prefix(learner.catalogue)
            former = [name for name in await self._store.load_checkpoint() if not name.startswith(own)]
            if former:
                await self._store.save_checkpoint({}, former)
        for (partition, at), data in zip(due, await self._store.entries(due), strict=True):
            positions = () if data is None else ForgetRecord.unpack(data).positions
            lessons = self._taken_back.pop((partition, at), 0)
            await self._store.finish_forget(partition, at, positions, lessons)
        self.owes = False
