"""The auditor of a simulation: it notes what callers were told, in plain dicts, and says at the end what must be kept.

It knows nothing of ledgers, records or sums of matrices: an event counts once, a decision can be explained, the last
outcome of an offer decides what it teaches, and what a period taught is a sum of products of small integers.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from engine.catalogue import Catalogue
from models import Statistics
from tests.simulation.scenario import ACCEPTED_HELP

STEPS = 100
TEACHES = {
    "SERVED": 0,  # in the end every window has closed
    "PRESENTED": 0,
    "CLICKED": 0,
    "IGNORED": 0,
    "DECLINED": 0,
    "ACCEPTED": STEPS,
    "FULFILLED": STEPS,
    "CANCELLED": 0,
    "NOT_PRESENTED": None,
    "WITHDRAWN": None,
}


@dataclass
class OfferNote:
    """An offer in an answer, and the last outcome that was acknowledged."""

    offer: str
    propensity: float
    expires_ms: int
    stage: str = "SERVED"
    reported: bool = False
    """Whether any report was tried: it may have closed the offer, acknowledged or not."""


@dataclass
class DecisionNote:
    """A decision as its caller knows it."""

    id: str
    request: str
    customer: str
    time_ms: int
    offers: list[OfferNote] = field(default_factory=list)


class Auditor:
    """Notes, and what follows from them."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, int]] = defaultdict(dict)
        """Amount by event id, by customer; acknowledged ones."""
        self.decisions: dict[str, DecisionNote] = {}
        self.by_request: dict[str, str] = {}
        self.outcomes = 0
        self.refused = 0
        self.degraded = 0
        self.policies: dict[int, bytes] = {}

    # --- what callers were told -------------------------------------------------------------------------------------

    def surely_open(self, customer: str) -> list[tuple[str, OfferNote]]:
        """Offers of acknowledged decisions on which nothing was reported yet."""
        mine = [note for note in self.decisions.values() if note.customer == customer]
        return [(note.id, offer) for note in mine for offer in note.offers if not offer.reported]

    def decided(self, request: Any, answer: Any, was_open: list[tuple[str, OfferNote]]) -> DecisionNote | None:
        """Take note of an answer, asked for when `was_open` was surely open; None if it was degraded."""
        assert answer.customer_id == request.customer_id
        if not answer.decision_id:
            assert answer.degraded in (1, 2), answer
            assert [offer.offer_id for offer in answer.offers] == ["card"], "the fallback list"
            self.degraded += 1
            return None
        shown = {(offer.decision_id, offer.offer_id) for offer in answer.open_offers}
        now_ms = request.time_ms
        for decision, offer in was_open:
            if not offer.reported and now_ms < offer.expires_ms and decision != answer.decision_id:
                assert (decision, offer.offer) in shown, f"{decision} {offer.offer} is open and was not shown"
        for ranked in answer.offers:
            assert 0.0 < ranked.propensity <= 1.0, ranked
            assert 0.0 <= ranked.acceptance_probability <= 1.0, ranked
        offers = [OfferNote(ranked.offer_id, ranked.propensity, ranked.expires_ms) for ranked in answer.offers]
        note = DecisionNote(answer.decision_id, request.request_id, answer.customer_id, answer.time_ms, offers)
        first = self.by_request.setdefault(request.request_id, note.id)
        assert first == note.id, f"request {request.request_id} was decided as {first} and as {note.id}"
        known = self.decisions.setdefault(note.id, note)
        assert [(o.offer, o.propensity) for o in known.offers] == [(o.offer, o.propensity) for o in note.offers]
        return known

    def published(self, version: int, head: bytes) -> None:
        """Take note of a snapshot that reached the board."""
        assert version not in self.policies, f"policy version {version} was published twice"
        assert version > max(self.policies, default=0), f"policy version {version} after {max(self.policies)}"
        self.policies[version] = head

    # --- what must be kept ------------------------------------------------------------------------------------------

    def check_customer(self, customer: str, answer: Any) -> None:
        """Every acknowledged event counts exactly once. Amounts are powers of two: the sum tells which."""
        amounts = self.events[customer]
        features = {feature.name: feature.value.number for feature in answer.features}
        spent, wanted = int(features["spent"]), sum(amounts.values())
        assert spent == wanted, f"events of {customer}: counted {spent:b}, acknowledged {wanted:b}"
        assert features["purchases"] == answer.events == len(amounts), (customer, answer)
        times = [entry.time_ms for entry in answer.timeline]
        assert times == sorted(times, reverse=True), "newest first"
        listed = [entry.attributes["amount"].number for entry in answer.timeline if entry.type]
        assert sorted(listed) == sorted(amounts.values()), f"timeline of {customer}: {listed}, acknowledged {amounts}"
        decided = {note.id for note in self.decisions.values() if note.customer == customer}
        assert {entry.decision_id for entry in answer.timeline if entry.decision_id} == decided

    def check_explained(self, note: DecisionNote, answer: Any) -> None:
        """The record is that of the answer given."""
        assert (answer.customer_id, answer.time_ms, answer.request_id) == (note.customer, note.time_ms, note.request)
        ranked = sorted((candidate for candidate in answer.candidates if candidate.rank), key=lambda c: c.rank)
        assert [(c.offer_id, c.propensity) for c in ranked] == [(o.offer, o.propensity) for o in note.offers]
        # By the belief that decided, or saying that it is not; and the parts are those of the whole.
        by_its_own = answer.explained_by_policy_version == answer.policy_version
        assert answer.exact == (not answer.caveat)
        assert by_its_own or not answer.exact
        for candidate in answer.candidates:
            assert candidate.text
            added = sum(part.probability for part in candidate.contributions)
            assert abs(candidate.base_rate + added - candidate.factors.estimate) < 1e-9
            if candidate.rank and answer.exact:
                # The worth is of the model's estimate; the probability shown is what such estimates came to.
                assert abs(candidate.factors.worth - candidate.score) < 1e-4 * (1.0 + candidate.factors.value)
                assert 0.0 <= candidate.acceptance_probability <= 1.0

    def check_learnt(self, catalogue: Catalogue, kept: Statistics, vectors: dict[str, list[int]]) -> None:
        """The statistics are the sums over the last acknowledged outcome of each offer instance."""
        period = catalogue.config.learning.period
        lessons: dict[str, dict[int, list[tuple[list[int], int]]]] = defaultdict(lambda: defaultdict(list))
        for note in self.decisions.values():
            for offer in note.offers:
                target = ACCEPTED_HELP if (offer.offer, offer.stage) == ("help", "ACCEPTED") else TEACHES[offer.stage]
                if target is not None:
                    lessons[offer.offer][note.time_ms // period].append((vectors[note.id], target))
        assert kept.offers == tuple(sorted(lessons)), f"learnt of {kept.offers}, told of {sorted(lessons)}"
        assert len(kept) == sum(map(len, lessons.values())), "sums of other periods than those told of"
        for offer, periods in lessons.items():
            A, b, n, s, *_ = kept.combined(offer, now_period=0, half_life_periods=None)
            told = [lesson for period in periods.values() for lesson in period]
            assert n == len(told), f"{offer}: {n} lessons learnt, {len(told)} told"
            assert s == sum(target**2 for _, target in told), f"{offer}: targets"
            size = range(len(b))
            assert b.tolist() == [sum(target * x[i] for x, target in told) for i in size], f"{offer}: b"
            assert A.tolist() == [[sum(x[i] * x[j] for x, _ in told) for j in size] for i in size], f"{offer}: A"
