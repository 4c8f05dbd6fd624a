"""Offers that are gone: outcomes of what was offered still come in, and their lessons are kept for when they return."""

import asyncio
import logging
from typing import Final

from engine.catalogue import Catalogue
from engine.config import parse
from engine.config_schema import key_of
from engine.errors import ConfigError
from engine.learner import Former
from engine.store.base import PolicyBoard
from engine.terms import terms_of
from engine.versions import History

log = logging.getLogger(__name__)

_LOOKED_AT: Final = 16
"""Versions that were in force last, of which the offers are known; each takes up to a second to read."""


async def former_offers(board: PolicyBoard, catalogue: Catalogue) -> dict[int, Former]:
    """What the learner has to know of offers that are not in the configuration any more, by key. Raises StoreError."""
    history = History.read(await board.read_versions())
    rows = sorted(history.versions.values(), key=lambda row: row.active_ms, reverse=True)
    found: dict[int, Former] = {}
    for version in [row.version for row in rows if row.active_ms and row.version != catalogue.version][:_LOOKED_AT]:
        text = await board.load_config(version)
        if text is None:
            continue
        try:
            config = await asyncio.to_thread(parse, text, version)
        except ConfigError as error:
            log.warning("offers of an earlier version that are gone are not known: %s", error)
            continue
        terms = terms_of(config)
        for offer in config.offers:
            key = key_of(offer.id)
            if key not in catalogue.index_of_key:
                found.setdefault(key, Former(offer.id, terms.get(key)))
    return found
