"""Finding the belief that decided, or the nearest one kept."""

import logging

from engine.catalogue import Catalogue
from engine.explain.kept import Belief, KeptBeliefs, nearest_of, unpack_belief
from engine.learner import prior_policy
from engine.record import DecisionRecord
from engine.store.base import PolicyBoard, StoreError
from models import CheckpointError

log = logging.getLogger(__name__)


class BeliefFinder:
    """Looks in this server's memory, then in the store."""

    def __init__(self, kept: KeptBeliefs, board: PolicyBoard) -> None:
        self._kept = kept
        self._board = board

    async def of(self, record: DecisionRecord, catalogue: Catalogue) -> Belief | None:
        """The belief of the version that a record names, or the nearest kept; None if none is of its transform.

        `catalogue` is that of the record: version 0 is its prior, whenever asked.
        """
        version, transform = record.policy_version, record.transform_version
        if version == 0:
            return _prior(catalogue)
        found = self._kept.nearest(version, transform)
        if found is not None and found.version == version:
            return found
        try:
            return await self._stored(version, transform, found)
        except StoreError as error:
            log.warning("the policies kept in the store could not be looked at: %s", error)
            return found

    async def _stored(self, version: int, transform: int, found: Belief | None) -> Belief | None:
        """The nearest in the store, if it is nearer than `found`."""
        versions = await self._board.kept_policies()
        if not versions:
            return found
        # Versions of a transform are side by side: of the closest below and the closest above one is of it, if any is.
        closest = versions[nearest_of(versions, version)]
        at = versions.index(closest)
        other = at + 1 if closest <= version else at - 1
        for candidate in (closest, *versions[max(other, 0) : other + 1]):
            if found is not None and abs(found.version - version) <= abs(candidate - version):
                continue
            data = await self._board.kept_policy(candidate)
            if data is None:
                continue  # let go meanwhile
            try:
                belief = unpack_belief(data)
            except CheckpointError as error:
                log.warning("policy %d as it is kept in the store cannot be read: %s", candidate, error)
                continue
            if belief.transform_version == transform:
                found = belief
        return found


def _prior(catalogue: Catalogue) -> Belief:
    prior = prior_policy(catalogue)
    lessons = tuple(prior.lessons.tolist())
    return Belief(0, prior.transform_version, prior.offers, prior.mean_weights, None, lessons)
