"""Whether a configuration may write features to a store: only with those of the version in force.

A record that is written with other features loses those that they do not have.
"""

import asyncio
import time

from engine.catalogue import Catalogue
from engine.config import parse
from engine.errors import NotAllowed
from engine.layouts import keep_layout
from engine.store.base import PolicyBoard
from engine.versions import Versions


async def refuse_other_features(board: PolicyBoard, catalogue: Catalogue) -> None:
    """Do nothing where no version is in force, or one with the same features.

    Raises NotAllowed for other features, ConfigError or NotFound if the version in force cannot be read, StoreError.
    """
    versions = Versions(board, lambda: time.time_ns() // 1_000_000)
    active = (await versions.history()).active
    if active in ("", catalogue.version):
        return
    text, name = await versions.text_of(active), f"version {active}"
    in_force = await asyncio.to_thread(lambda: Catalogue.compile(parse(text, name), active, text, name))
    if _features(in_force) != _features(catalogue):
        raise NotAllowed(
            f"the configuration given is version {catalogue.version}, but version {active} is in force, with other "
            "features: what the one given does not have would be lost. Put it in force first with opportune apply, or "
            "give the one in force, which opportune versions --export active prints"
        )


async def keep_layouts(board: PolicyBoard, catalogue: Catalogue, text: bytes) -> None:
    """Have others find the features that are written, and make the catalogue know theirs.

    Raises as refuse_other_features does, before anything is written.
    """
    await refuse_other_features(board, catalogue)
    for kind, layout in catalogue.layouts.items():
        await keep_layout(board, catalogue.version, text, layout, kind)


def _features(catalogue: Catalogue) -> dict[str, int]:
    return {kind: layout.version for kind, layout in catalogue.layouts.items()}
