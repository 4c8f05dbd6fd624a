"""One lead and its moves. Pure.

    open ──take──► taken ──done──► done
      ▲              │
      └───return─────┘       open, taken ──the offer expires──► closed

A lead is made of a decision that is recorded, so what becomes of it is an outcome like any other. While nobody has
brought it to the customer it says nothing about the customer: a return and an expiry of what was never taken are
NOT_PRESENTED. A seller who has returned a lead does not get it again.

Every move may be asked for again: who has it already, has returned it already, has ended it so already is told so.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Final, NamedTuple

import orjson

from engine.errors import NotAllowed
from engine.lifecycle import Stage
from engine.limits import LEAD_RETURNS_ENTRIES_MAX


class State(IntEnum):
    """Where a lead stands. The numbers are those of opportune.v1.LeadState."""

    OPEN = 1
    TAKEN = 2
    DONE = 3
    CLOSED = 4


ENDS: Final = frozenset({Stage.ACCEPTED, Stage.DECLINED, Stage.IGNORED, Stage.NOT_PRESENTED, Stage.WITHDRAWN})
"""Outcomes that end a lead."""

LIVE: Final = frozenset({State.OPEN, State.TAKEN})


class Returned(NamedTuple):
    """That a lead was returned."""

    seller: str
    reason: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Lead:
    """One lead."""

    list_id: str
    decision_id: str
    customer: str
    offer: str
    treatment: str
    worth: float
    planned: str
    """For whom; "": for anybody."""
    from_ms: int
    until_ms: int
    expires_ms: int
    changed_ms: int
    state: int = State.OPEN
    seller: str = ""
    """Who has or had it; "": nobody, or it was returned."""
    outcome: int = 0
    told: bool = False
    """Whether it was recorded that it was not presented."""
    returns: tuple[Returned, ...] = ()

    @property
    def lead_id(self) -> str:
        """Its name."""
        return f"{self.list_id}/{self.decision_id}"

    @property
    def queue(self) -> str:
        """The seller under whose leads it is listed; "": under everybody's."""
        return self.seller or self.planned

    def pack(self) -> bytes:
        """As the store keeps it."""
        return orjson.dumps(asdict(self) | {"returns": [list(one) for one in self.returns]})

    @classmethod
    def unpack(cls, data: bytes) -> "Lead":
        """What `pack` gave."""
        found = orjson.loads(data)
        found["returns"] = tuple(Returned(*one) for one in found["returns"])
        return cls(**found)

    def at(self, now_ms: int) -> "Lead":
        """As it stands at a time: closed, if its offer has expired by then."""
        if self.state in LIVE and now_ms >= self.expires_ms:
            return replace(self, state=State.CLOSED, changed_ms=self.expires_ms)
        return self


def taken(lead: Lead, seller: str, now_ms: int) -> Lead:
    """The lead, taken by a seller. Raises NotAllowed; the lead itself if the seller has it already."""
    lead = lead.at(now_ms)
    if lead.state == State.TAKEN and lead.seller == seller:
        return lead
    if lead.state != State.OPEN:
        raise NotAllowed(f"lead {lead.lead_id} {_why_not_open(lead)}")
    if lead.planned and lead.planned != seller:
        raise NotAllowed(f"lead {lead.lead_id} is planned for {lead.planned!r}")
    if any(one.seller == seller for one in lead.returns):
        raise NotAllowed(f"lead {lead.lead_id} was returned by {seller!r} before: it is for others")
    return replace(lead, state=State.TAKEN, seller=seller, changed_ms=now_ms)


def given_back(lead: Lead, seller: str, reason: str, now_ms: int) -> Lead:
    """The lead, returned. Raises NotAllowed; the lead itself if this seller has returned it already."""
    if any(one.seller == seller for one in lead.returns):
        return lead
    _refuse_unless_held(lead, seller)
    returns = (*lead.returns, Returned(seller, reason, now_ms))
    state = State.OPEN if len(returns) < LEAD_RETURNS_ENTRIES_MAX and lead.state == State.TAKEN else State.CLOSED
    return replace(lead, state=state, seller="", planned="", changed_ms=now_ms, returns=returns)


def ended(lead: Lead, seller: str, outcome: Stage, now_ms: int) -> Lead:
    """The lead, done. Raises NotAllowed; the lead itself if this seller has ended it so already."""
    if lead.state == State.DONE and lead.seller == seller and lead.outcome == outcome:
        return lead
    _refuse_unless_held(lead, seller)
    return replace(lead, state=State.DONE, outcome=int(outcome), changed_ms=now_ms)


def closed(lead: Lead, now_ms: int) -> Lead:
    """The lead, over because its offer has expired."""
    return lead.at(now_ms)


def _refuse_unless_held(lead: Lead, seller: str) -> None:
    # Of a lead that expired with a seller, the seller may still tell what came of it.
    if lead.seller != seller or lead.state not in (State.TAKEN, State.CLOSED):
        raise NotAllowed(f"lead {lead.lead_id} is not with {seller!r}: it {_where(lead)}")


def _where(lead: Lead) -> str:
    return "is open" if lead.state == State.OPEN else _why_not_open(lead)


def _why_not_open(lead: Lead) -> str:
    if lead.state == State.TAKEN:
        return f"is with {lead.seller!r}"
    if lead.state == State.DONE:
        return f"was ended by {lead.seller!r} with {Stage(lead.outcome).name}"
    return f"is closed: its offer expired at {lead.expires_ms}, or it was returned too often"


def order(lead: Lead) -> tuple[str, float, str]:
    """Where a lead stands in lists: by list, the most worth first."""
    return lead.list_id, -lead.worth, lead.decision_id


def sorted_leads(leads: Sequence[Lead]) -> list[Lead]:
    """In that order."""
    return sorted(leads, key=order)
