"""What the learner leaves in the store, so that servers can explain decisions of before they were started."""

from collections.abc import Mapping

import orjson

from engine.catalogue import Catalogue
from engine.explain.kept import pack_belief, surplus
from engine.learner import prior_policy
from engine.limits import POLICIES_KEPT_BYTES_MAX, POLICIES_KEPT_ENTRIES_MAX
from engine.store.base import PolicyBoard

_KEPT_MIN = 4


async def keep_in_store(
    board: PolicyBoard, catalogue: Catalogue, head: bytes, beliefs: Mapping[str, bytes], *, alone: bool = False
) -> None:
    """Keep a whole snapshot's weights, and let go of what is too much then, or of all others. Raises StoreError."""
    facts = orjson.loads(head)
    policy = prior_policy(catalogue).replaced(beliefs, facts["version"])
    data = pack_belief(policy, facts["average"], facts.get("calibration", ()))
    room = max(_KEPT_MIN, min(POLICIES_KEPT_ENTRIES_MAX, POLICIES_KEPT_BYTES_MAX // len(data)))
    versions = [version for version in await board.kept_policies() if version != facts["version"]]
    if alone:
        await board.keep_policy(facts["version"], data, versions)
        return
    versions.append(facts["version"])
    versions.sort()
    let_go = []
    while len(versions) > room:
        let_go.append(versions.pop(surplus(versions)))
    await board.keep_policy(facts["version"], data, let_go)
