"""Contacts as a scenario itself would have had them, and units as it would have used them, for limits that the log
cannot tell of.

    log → engine.whatif.turns → look, short: what limits hold for whom → slates → served: contacts and units
                              → heard: what came of them

Who came, when, where and what they were offered before the period stay as in the log; so do outcomes, where the
scenario offers what the log offered: of what else it offers nothing is heard. The contacts are rows as the ledger has
them, and what they mean is told by the contact policy of the scenario itself (engine.contact_policy). So a scenario
that decides as the log did has the contacts of the log, and its limits.

What it cannot know: what was before the log begins, and contacts under other names of a person.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from engine.budgets import Left
from engine.catalogue import Catalogue
from engine.contact_policy import ContactPolicy, Look
from engine.contact_rows import FIRST, RANK, joined, moved, unpacked
from engine.course import standing
from engine.groups import lineage
from engine.ledger import Glance
from engine.lifecycle import Stage
from engine.limits import TIME_MS_MAX
from engine.whatif.period import Decisions
from engine.whatif.spending import Spending, budgets_apart
from engine.whatif.turns import Fact, Heard, Position

_PERIOD_MS_MAX: Final = 32 * 86_400_000

Ints = NDArray[np.int64]


def contacts_apart(one: Catalogue, other: Catalogue) -> bool:
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


class Walked(NamedTuple):
    """Of what limits differ, so that they are counted anew."""

    contacts: bool = False
    budgets: bool = False

    @classmethod
    def between(cls, one: Catalogue, other: Catalogue) -> Self:
        """What differs in two configurations."""
        return cls(contacts_apart(one, other), budgets_apart(one, other))

    def __or__(self, other: tuple[bool, bool]) -> "Walked":
        return Walked(self.contacts or other[0], self.budgets or other[1])


class Walk:
    """The contacts of everybody, as one scenario makes them, and what it uses of its budgets."""

    def __init__(self, catalogue: Catalogue, walked: Walked) -> None:
        self.walked = walked
        self._policy = catalogue.contacts if walked.contacts else None
        self._spending = Spending(catalogue.budgets) if walked.budgets and catalogue.budgets else None
        self.holders = [
            holder
            for holder, there in ((catalogue.contacts, walked.contacts), (catalogue.budgets, walked.budgets))
            if there and holder is not None
        ]
        """What is worked out anew."""
        self._catalogue = catalogue
        self._contacts: dict[str, tuple[bytes, int]] = {}
        """(rows, clock_ms) of each person."""
        self._missed: dict[Position, frozenset[int]] = {}
        """Keys of the offers that the log has there and the scenario has not."""

    @property
    def horizon_ms(self) -> int:
        """What is older than that matters to nothing."""
        far = 0 if self._policy is None else self._policy.horizon_ms
        if self._spending is None:
            return far
        lasting = any(budget.per is None for budget in self._catalogue.config.budgets)
        return max(far, TIME_MS_MAX if lasting else _PERIOD_MS_MAX)

    def begin(self) -> None:
        """Forget everybody's contacts: those of others begin."""
        self._contacts.clear()
        self._missed.clear()

    def look(self, people: Sequence[str], channels: Ints, times_ms: Ints, limits: Ints) -> Look | None:
        """What the contacts of these people mean now; None: there is no contact policy. Nobody may be there twice."""
        if self._policy is None:
            return None
        return self._policy.look(self._glances(people), [None] * len(people), channels, times_ms, limits)

    def _glances(self, people: Sequence[str]) -> list[Glance]:
        """Ledgers in which nothing stands but contacts."""
        known = [self._contacts.get(person, (b"", 0)) for person in people]
        return [
            Glance(epoch=0, repeated=None, open_offers=(), contacts=rows, contact_clock_ms=clock_ms)
            for rows, clock_ms in known
        ]

    def short(self, times_ms: Ints) -> Sequence[Left] | None:
        """Which budgets run short for each of these decisions; None: nothing does."""
        return None if self._spending is None or not len(times_ms) else self._spending.short(times_ms.tolist())

    def nothing_left(self, count: int) -> Sequence[Left] | None:
        """As if all budgets were used up, for so many decisions."""
        nothing: Left = [(at, 0) for at in range(len(self._catalogue.budgets.names))]
        return None if self._spending is None else [nothing] * count

    def served(
        self, look: Look | None, asked: Decisions, channels: Ints, picks: NDArray[np.int16]
    ) -> list[tuple[int, int]]:
        """The scenario serves `picks` (n, K) in these decisions.

        Returns those that come too late for units of a budget, with how many places there are units for: they are not
        served, and are to be decided again.
        """
        late = []
        silent, keys = self._catalogue.silent.offers, self._catalogue.offer_keys
        each = zip(
            picks.tolist(), asked.slates.tolist(), asked.people, asked.positions, channels.tolist(), strict=True
        )
        for at, (slate, logged, person, position, channel) in enumerate(each):
            offers = [offer for offer in slate if offer >= 0 and offer not in silent]
            if self._spending is not None and offers:
                places = self._spending.spend(offers, int(asked.times_ms[at]))
                if places is not None:
                    late.append((at, places))
                    continue
            if look is not None:
                self._grow(look, at, person, position, channel, offers)
            told = [keys[offer] for offer in offers]
            if logged[: len(told)] != told or any(logged[len(told) :]):
                missed = frozenset(logged).difference([0, *told])
                if missed:
                    self._missed[position] = missed
        return late

    def _grow(
        self, look: Look, at: int, person: str, position: Position, channel: int, offers: Sequence[int]
    ) -> None:
        assert self._policy is not None
        rows = self._policy.with_served(look, at, channel, offers, position[1])
        self._contacts[person] = rows, look.clocks_ms[at]

    def took_place(self, facts: Sequence[Fact]) -> None:
        """Decisions of the log that stay as they were made. Nobody may be there twice."""
        policy, index, silent = self._policy, self._catalogue.index_of_key, self._catalogue.silent.offers
        if self._spending is not None:
            for fact in facts:
                offers = [index[key] for key in fact.slate if key in index]
                self._spending.spend([offer for offer in offers if offer not in silent], fact.time_ms, anyhow=True)
        if policy is None or not facts:
            return
        where = [self._catalogue.channel_index.get(fact.channel, -1) for fact in facts]
        look = policy.look(
            self._glances([fact.person for fact in facts]),
            [None] * len(facts),
            np.array(np.maximum(where, 0), np.int64),
            np.array([fact.time_ms for fact in facts], np.int64),
            np.array([max(1, len(fact.slate)) for fact in facts], np.int64),
        )
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
                fact.position[1], rank, key=key, channel=fact.channel, time_ms=fact.time_ms, stage=Stage.SERVED,
                now_ms=fact.time_ms,
            )  # fmt: skip
            found.append(row._replace(rank=rank | (FIRST if first else 0)))
            first = False
        self._contacts[fact.person] = b"".join([row.pack() for row in joined(found)]), clock_ms

    def heard(self, outcomes: Sequence[Heard]) -> None:
        """Outcomes of the log: they move the contact that they are of, if the scenario had it, too."""
        for one in outcomes:
            if one.key in self._missed.get(one.position, ()):
                continue
            offer = self._catalogue.index_of_key.get(one.key)
            if self._spending is not None and offer is not None:
                self._spending.heard(offer, one.served_ms, one.before, one.after)
            if self._policy is not None:
                self._move(self._policy, one)

    def _move(self, policy: ContactPolicy, one: Heard) -> None:
        data, clock_ms = self._contacts.get(one.person, (b"", 0))
        rows, position, stage = unpacked(data), one.position[1], standing(one.after)
        # In the scenario it may stand elsewhere in the slate.
        ranks = [row.rank & RANK for row in rows if row.position == position and row.key == one.key]
        found = moved(rows, position, ranks[0], stage, one.time_ms) if ranks else None
        if found is None:
            again = policy.resumed(
                position, one.rank, key=one.key, channel=one.channel, time_ms=one.served_ms, stage=stage,
                now_ms=one.time_ms,
            )  # fmt: skip
            found = joined([*rows, again])
        self._contacts[one.person] = b"".join([row.pack() for row in found]), clock_ms
