"""Contacts as a scenario itself would have had them, for limits that the log cannot tell of.

    log → engine.whatif.turns → look: what limits hold for whom → the slates of the scenario → contacts of the scenario

Who came, when, where and what they were offered before the period stay as in the log; so do outcomes, where the
scenario offers what the log offered: of what else it offers nothing is heard. The contacts are rows as the ledger has
them, and what they mean is told by the contact policy of the scenario itself (engine.contact_policy). So a scenario
that decides as the log did has the contacts of the log, and its limits.

What it cannot know: contacts from before the log begins, and those under other names of a person.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.contact_policy import Look
from engine.contact_rows import FIRST, RANK, joined, moved, placed, read, unpacked
from engine.groups import lineage
from engine.ledger import Glance
from engine.lifecycle import Stage
from engine.whatif.turns import Fact, Heard
from features import Offset

Ints = NDArray[np.int64]


def walks_apart(one: Catalogue, other: Catalogue) -> bool:
    """Whether contacts mean something else in two configurations, so that what was kept back in one tells nothing of
    the other."""
    if one.config.contact_policy is None and other.config.contact_policy is None:
        return False
    parts = []
    for each in (one, other):
        config = each.config
        offers = {
            offer.id: (offer.category, offer.kind, window, lineage(config.groups, offer.group))
            for offer, window in zip(config.offers, each.windows_ms, strict=True)
        }
        parts.append((config.contact_policy, config.timezone, offers))
    (*heads, offers), (*others, other_offers) = parts
    return heads != others or any(offers[offer] != other_offers[offer] for offer in offers.keys() & other_offers.keys())


class Walk:
    """The contacts of everybody in one partition, as one scenario makes them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._policy = catalogue.contacts
        self._catalogue = catalogue
        self._contacts: dict[str, tuple[bytes, int]] = {}
        """(rows, clock_ms) of each person."""
        self._missed: dict[Offset, frozenset[int]] = {}
        """Keys of the offers that the log has there and the scenario has not."""

    @property
    def horizon_ms(self) -> int:
        """What is older than that matters to nothing."""
        return 0 if self._policy is None else self._policy.horizon_ms

    def begin(self) -> None:
        """Forget everybody: another partition begins."""
        self._contacts.clear()
        self._missed.clear()

    def look(self, people: Sequence[str], channels: Ints, times_ms: Ints, limits: Ints) -> Look | None:
        """What the contacts of these people mean now; None: there is no contact policy. Nobody may be there twice."""
        if self._policy is None:
            return None
        known = [self._contacts.get(person, (b"", 0)) for person in people]
        glances = [Glance(0, 0, None, (), (), rows, clock_ms) for rows, clock_ms in known]
        return self._policy.look(glances, [None] * len(people), channels, times_ms, limits)

    def served(
        self,
        look: Look | None,
        people: Sequence[str],
        positions: Sequence[Offset],
        channels: Ints,
        picks: NDArray[np.int16],
        logged: Ints,
    ) -> None:
        """The scenario has served `picks` (n, K), where the log has the offers of the keys `logged` (n, L)."""
        if self._policy is None or look is None:
            return
        silent, keys = self._catalogue.silent.offers, self._catalogue.offer_keys
        slates = zip(people, positions, picks.tolist(), logged.tolist(), strict=True)
        for at, (person, position, row, there) in enumerate(slates):
            offers = [offer for offer in row if offer >= 0 and offer not in silent]
            self._grow(look, at, person, position, int(channels[at]), offers)
            missed = frozenset(there).difference([0, *(keys[offer] for offer in offers)])
            if missed:
                self._missed[position] = missed

    def _grow(
        self, look: Look, at: int, person: str, position: Offset, channel: int, offers: Sequence[int]
    ) -> None:
        assert self._policy is not None
        clock_ms, rows = read(self._policy.grown(look, at, channel, offers), 0)
        self._contacts[person] = placed(rows, position), clock_ms

    def took_place(self, facts: Sequence[Fact]) -> None:
        """Decisions of the log that stay as they were made. Nobody may be there twice."""
        policy, index = self._policy, self._catalogue.index_of_key
        if policy is None or not facts:
            return
        where = [self._catalogue.channel_index.get(fact.channel, -1) for fact in facts]
        look = policy.look(
            [Glance(0, 0, None, (), (), *self._contacts.get(fact.person, (b"", 0))) for fact in facts],
            [None] * len(facts),
            np.array(np.maximum(where, 0), np.int64),
            np.array([fact.time_ms for fact in facts], np.int64),
            np.array([max(1, len(fact.slate)) for fact in facts], np.int64),
        )
        silent = self._catalogue.silent.offers
        for at, (fact, channel) in enumerate(zip(facts, where, strict=True)):
            known = [index[key] for key in fact.slate if key in index] if channel >= 0 else []
            self._grow(look, at, fact.person, fact.position, max(channel, 0), [o for o in known if o not in silent])
            if len(known) < len(fact.slate):
                self._add_strange(fact, first=not known, known=channel >= 0)

    def _add_strange(self, fact: Fact, *, first: bool, known: bool) -> None:
        """Contacts about offers, or in a channel, that the configuration does not have: they count for whatever they
        may have been."""
        assert self._policy is not None
        rows, clock_ms = self._contacts[fact.person]
        found = unpacked(rows)
        for rank, key in enumerate(fact.slate, 1):
            if known and key in self._catalogue.index_of_key:
                continue
            row = self._policy.resumed(
                fact.position, rank, key=key, channel=fact.channel, time_ms=fact.time_ms, stage=Stage.SERVED,
                now_ms=fact.time_ms,
            )  # fmt: skip
            found.append(row._replace(rank=rank | (FIRST if first else 0)))
            first = False
        self._contacts[fact.person] = b"".join([row.pack() for row in joined(found)]), clock_ms

    def heard(self, outcomes: Sequence[Heard]) -> None:
        """Outcomes of the log: they move the contact that they are of, if the scenario had it, too."""
        policy = self._policy
        if policy is None:
            return
        for one in outcomes:
            if one.key in self._missed.get(one.position, ()):
                continue
            data, clock_ms = self._contacts.get(one.person, (b"", 0))
            rows = unpacked(data)
            # In the scenario it may stand elsewhere in the slate.
            ranks = [row.rank & RANK for row in rows if row.position == one.position and row.key == one.key]
            rank = ranks[0] if ranks else one.rank
            found = moved(rows, one.position, rank, one.stage, one.time_ms) if ranks else None
            if found is None:
                again = policy.resumed(
                    one.position, one.rank, key=one.key, channel=one.channel, time_ms=one.served_ms,
                    stage=Stage(one.stage), now_ms=one.time_ms,
                )  # fmt: skip
                found = joined([*rows, again])
            self._contacts[one.person] = b"".join([row.pack() for row in found]), clock_ms
