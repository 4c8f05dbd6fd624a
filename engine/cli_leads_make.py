"""Making a list of leads, from whom there is to what sellers get.

    1  leads that this list has already keep their places          so it may be run again after it broke
    2  everybody is looked at (DecideMany, preview)                nothing is recorded, nobody's caps are used
    3  the most worth gets the places (engine.leads.assign)        whom this list has decided for goes first
    4  whoever has a place is decided for (DecideMany)             recorded, as any other decision
    5  who has no offer any more makes room: 3 and 4 for the next  until all places are used or nobody is left
    6  the decisions become leads (Leads.Add)
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import Message

from engine.errors import Unavailable
from engine.leads.assign import Assignment, Place, suiting
from engine.limits import DECIDE_MANY_ENTRIES_MAX, LEAD_CALL_ENTRIES_MAX
from opportune.v1 import (
    decisions_pb2,
    decisions_pb2_grpc,
    identities_pb2,
    identities_pb2_grpc,
    leads_pb2,
    leads_pb2_grpc,
)

_TRIES_MAX: Final = 5
_PAUSE_S: Final = 1.0
_CALL_S: Final = 30.0
_CHUNK_S: Final = 300.0
_OVER: Final = (leads_pb2.LEAD_STATE_DONE, leads_pb2.LEAD_STATE_CLOSED)


class PlannedLead(NamedTuple):
    """One line for a seller."""

    seller: str
    from_ms: int
    until_ms: int
    customer: str
    offer: str
    treatment: str
    worth: float
    acceptance_probability: float
    expires_ms: int
    reasons: str
    lead_id: str
    decision_id: str


@dataclass
class Made:
    """What came of it."""

    leads: list[PlannedLead] = field(default_factory=list)
    """By seller and period, the most worth first."""
    without_offer: int = 0
    without_place: int = 0
    failed: int = 0
    told: list[str] = field(default_factory=list)
    """What people should know, such as why some could not be decided for."""


class Planner:
    """Makes the leads of one list."""

    def __init__(self, address: str, batch: str, channel: str, placement: str, language: str) -> None:
        self._address = address
        self._batch = batch
        self._request: dict[str, Any] = {"channel": channel, "placement": placement, "language": language}

    def make(
        self, people: Mapping[str, Mapping[str, str]], places: Sequence[Place], limit: int | None, *, record: bool
    ) -> Made:
        """Choose, decide and make leads. Raises InvalidArgument or Unavailable with the engine's words."""
        made = Made()
        with grpc.insecure_channel(self._address) as channel:
            decisions = decisions_pb2_grpc.DecisionsStub(channel)
            hand_off = leads_pb2_grpc.LeadsStub(channel)
            there = list(self._there(hand_off))
            used = _used(places, there)
            had = {lead.customer_id for lead in there}
            answers = self._decide(decisions, [name for name in people if name not in had], True, made)
            offered = {name: answer for name, answer in answers.items() if _worth(answer) > 0}
            made.without_offer = len(answers) - len(offered)
            attributes = self._attributes(channel, people, places, list(offered))
            suits = {
                name: suiting(places, attributes[name], answer.offers[0].expires_ms) for name, answer in offered.items()
            }
            # Whom this list has decided for already goes first: that decision is recorded, with a place or without.
            rest = sorted(offered, key=lambda name: (not offered[name].decision_id, -_worth(offered[name]), name))
            assignment = Assignment(places, used)
            room = len(people) if limit is None else max(0, limit - len(there))
            while True:
                rest, fresh = _fill(assignment, rest, suits, room)
                if not record or not fresh:
                    break
                undecided = [name for name in fresh if not offered[name].decision_id]
                decided = self._decide(decisions, undecided, False, made)
                offered |= decided
                for name in fresh:
                    answer = decided.get(name, offered[name])
                    if not answer.decision_id or not answer.offers:
                        assignment.remove(name)
                        made.without_offer += name in decided
            placed = assignment.places_of()
            made.without_place = len(rest)
            if record and placed:
                self._add(hand_off, placed, places, offered)
        made.leads = [_line(self._batch, name, places[at], offered[name]) for name, at in placed.items()]
        made.leads += [_again(lead) for lead in there if lead.state not in _OVER]
        made.leads.sort(key=lambda lead: (lead.seller, lead.from_ms, -lead.worth, lead.customer))
        return made

    def _there(self, stub: leads_pb2_grpc.LeadsStub) -> Iterator[leads_pb2.Lead]:
        token = ""
        while True:
            request = leads_pb2.ListLeadsRequest(
                list_id=self._batch, page_size=LEAD_CALL_ENTRIES_MAX, page_token=token
            )
            page = _tried(stub.List, request)
            yield from page.leads
            token = page.next_page_token
            if not token:
                return

    def _decide(
        self, stub: decisions_pb2_grpc.DecisionsStub, names: Sequence[str], preview: bool, made: Made
    ) -> dict[str, decisions_pb2.DecideResponse]:
        """Answers by customer, of those who could be decided for."""
        found: dict[str, decisions_pb2.DecideResponse] = {}
        for start in range(0, len(names), DECIDE_MANY_ENTRIES_MAX):
            chunk = names[start : start + DECIDE_MANY_ENTRIES_MAX]
            request = decisions_pb2.DecideManyRequest(
                batch_id=self._batch,
                limit=1,
                preview=preview,
                customers=[decisions_pb2.BatchCustomer(customer_id=name) for name in chunk],
                **self._request,
            )
            for answer in _tried(stub.DecideMany, request, all_of=True):
                if answer.HasField("error"):
                    made.failed += 1
                    made.told.append(f"{answer.customer_id}: {answer.error.status}: {answer.error.message}")
                elif answer.answer.degraded and not (answer.answer.preview or answer.answer.decision_id):
                    made.failed += 1
                    why = decisions_pb2.DegradedReason.Name(answer.answer.degraded)
                    made.told.append(f"{answer.customer_id}: not decided for: {why}")
                else:
                    found[answer.customer_id] = answer.answer
        return found

    def _attributes(
        self,
        channel: grpc.Channel,
        people: Mapping[str, Mapping[str, str]],
        places: Sequence[Place],
        names: Sequence[str],
    ) -> dict[str, dict[str, str]]:
        """Attributes of customers: of the file, else what they belong to, by the kind of entity."""
        wanted = {name for place in places for name, _ in place.suits}
        stub = identities_pb2_grpc.IdentitiesStub(channel)
        found = {}
        for customer in names:
            given = dict(people[customer])
            if wanted - given.keys():
                request = identities_pb2.LineageRequest(customer_id=customer)
                lineage = _tried(stub.Lineage, request)
                given = {link.entity.kind: link.entity.id for link in lineage.entities} | given
            found[customer] = given
        return found

    def _add(
        self,
        stub: leads_pb2_grpc.LeadsStub,
        placed: Mapping[str, int],
        places: Sequence[Place],
        offered: Mapping[str, decisions_pb2.DecideResponse],
    ) -> None:
        leads = [
            leads_pb2.NewLead(
                decision_id=offered[name].decision_id,
                seller=places[at].seller,
                from_ms=places[at].from_ms,
                until_ms=places[at].until_ms,
            )
            for name, at in placed.items()
        ]
        for start in range(0, len(leads), LEAD_CALL_ENTRIES_MAX):
            request = leads_pb2.AddLeadsRequest(
                list_id=self._batch,
                leads=leads[start : start + LEAD_CALL_ENTRIES_MAX],
                language=self._request["language"],
            )
            _tried(stub.Add, request)


def _fill(
    assignment: Assignment, names: Sequence[str], suits: Mapping[str, tuple[int, ...]], room: int
) -> tuple[list[str], list[str]]:
    """(those without a place, those who got one now); at most `room` have one in all."""
    rest: list[str] = []
    fresh: list[str] = []
    had = len(assignment.places_of())
    for name in names:
        if had + len(fresh) < room and assignment.add(name, suits[name]):
            fresh.append(name)
        else:
            rest.append(name)
    return rest, fresh


def _used(places: Sequence[Place], there: Sequence[leads_pb2.Lead]) -> list[int]:
    """How much of each place the leads take that are there. One that was returned takes none: it is for anybody."""
    used = [0] * len(places)
    for lead in there:
        who = lead.seller or lead.planned_seller
        for at, place in enumerate(places):
            if who == place.seller and lead.from_ms == place.from_ms and used[at] < place.capacity:
                used[at] += 1
                break
    return used


def _worth(answer: decisions_pb2.DecideResponse) -> float:
    return answer.offers[0].score if answer.offers else 0.0


def _line(list_id: str, name: str, place: Place, answer: decisions_pb2.DecideResponse) -> PlannedLead:
    offer = answer.offers[0]
    return PlannedLead(
        place.seller,
        place.from_ms,
        place.until_ms,
        name,
        offer.offer_id,
        offer.treatment,
        offer.score,
        offer.acceptance_probability,
        offer.expires_ms,
        " ".join(reason.text for reason in offer.reasons),
        f"{list_id}/{answer.decision_id}" if answer.decision_id else "",
        answer.decision_id,
    )


def _again(lead: leads_pb2.Lead) -> PlannedLead:
    return PlannedLead(
        lead.seller or lead.planned_seller,
        lead.from_ms,
        lead.until_ms,
        lead.customer_id,
        lead.offer_id,
        lead.treatment,
        lead.worth,
        float("nan"),
        lead.expires_ms,
        "",
        lead.lead_id,
        lead.decision_id,
    )


def _tried(method: Callable[..., Any], request: Message, *, all_of: bool = False) -> Any:
    """The answer, or all of a stream, of a call that may be made again. Raises Unavailable with the engine's words."""
    for last in range(_TRIES_MAX, 0, -1):
        try:
            return list(method(request, timeout=_CHUNK_S)) if all_of else method(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            if last == 1 or error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise Unavailable(f"{error.code().name}: {error.details()}") from error
            time.sleep(_PAUSE_S)
    raise AssertionError("the last try returns or raises")
