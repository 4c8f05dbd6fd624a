"""The answer to Explain: a record, read with the configuration and the belief that it was made with."""

import asyncio
from dataclasses import replace
from typing import Final

import orjson

from engine.answers import fill_freshness, plain_value
from engine.answerwire import reason
from engine.catalogue import Catalogue
from engine.explain.case import Case
from engine.explain.contributions import REST
from engine.explain.kept import Belief
from engine.explain.languages import words_for
from engine.explain.standing import Standing
from engine.explain.story import Story, free_again_ms
from engine.limits import EXPLAIN_ENTRIES_MAX, EXPLAIN_OFFER_ENTRIES_MIN
from engine.policyfacts import PolicyFacts
from engine.record import DecisionRecord
from models import Policy
from opportune.v1 import decisions_pb2

_AT_A_TIME: Final = 8
"""Offers between two chances for others: one or two milliseconds."""
_TOLD_WHOLE: Final = 3
"""Ranks whose reasons are in the summary; further ones have theirs with the candidate."""


async def explained(
    catalogue: Catalogue,
    record: DecisionRecord,
    decision: str,
    belief: Belief | None,
    now: Policy,
    language: str = "",
    facts: PolicyFacts | None = None,
) -> decisions_pb2.ExplainResponse:
    """Why this offer, why not that one, why nothing. Others get their turn meanwhile: decisions do not wait for it.

    Args:
        catalogue: the configuration that the record names.
        record: the decision.
        decision: its id.
        belief: the policy that decided, or the nearest one kept; None if there is none.
        now: the policy in service, for how sure the estimates of offers are that the record does not have.
        language: of the words.
        facts: of the policy in service; None: nothing is told of it.
    """
    case = Case(catalogue, record, belief)
    standing = Standing.of(case, now, facts or PolicyFacts.none(len(catalogue.ladder.offers)))
    if catalogue.ladder.offers and standing is not None and case.standing.model:
        case = replace(case, with_points=standing.estimates, points_version=standing.policy_version)
    language, words = words_for(language)
    story = Story(case, words, standing)
    response = decisions_pb2.ExplainResponse(
        decision_id=decision,
        customer_id=record.customer,
        channel=catalogue.config.channels[record.channel].id,
        placement=catalogue.placement_name(record.channel, record.placement),
        time_ms=record.time_ms,
        policy_version=record.policy_version,
        config_version=record.config_version,
        seed=record.seed,
        nothing_propensity=record.nothing_propensity,
        degraded=record.degraded,  # type: ignore[arg-type]
        request_id=record.request_id,
        explained_by_policy_version=0 if belief is None or case.parts is None else belief.version,
        exact=case.exact,
        caveat=story.caveat(),
        language=language,
        arms=case.standing.names,
    )
    for name, value in (orjson.loads(record.context) if record.context else {}).items():
        response.context[name].CopyFrom(plain_value(value))
    if record.known:
        fill_freshness(response.state, record.watermark, record.latest_event_ms, record.time_ms)
    else:
        response.state.known = False
    names = catalogue.input_names if case.readable else [f"column {at}" for at in range(len(record.x))]
    response.inputs.extend(
        decisions_pb2.Input(name=name, steps=step) for name, step in zip(names, case.x.tolist(), strict=True)
    )
    sds = _sds(case, now)
    candidates = []
    for at in range(len(catalogue.offers)):
        candidates.append(_candidate(case, story, at, sds))
        if at % _AT_A_TIME == _AT_A_TIME - 1:
            await asyncio.sleep(0)
    # The answer first, in its order; then what was eligible, the best first; then the rest as the catalogue has it.
    candidates.sort(key=lambda c: (c.rank == 0, c.rank, not c.eligible, -c.score if c.eligible else 0.0))
    ranked = [candidate for candidate in candidates if candidate.rank]
    texts = [candidate.text for candidate in ranked[:_TOLD_WHOLE]]
    texts += [story.rank(case.catalogue.offer_ids.index(c.offer_id)) for c in ranked[_TOLD_WHOLE:]]
    degraded = decisions_pb2.DegradedReason.Name(record.degraded) if record.degraded else ""
    response.summary = story.summary(texts, degraded)
    response.brief = story.brief()
    await asyncio.sleep(0)
    response.candidates.extend(candidates)
    return response


def reasons_again(
    catalogue: Catalogue, record: DecisionRecord, belief: Belief | None, now: Policy, facts: PolicyFacts, language: str
) -> dict[int, list[decisions_pb2.Reason]]:
    """By offer of its slate, the reasons that the answer to a decision had. Arguments as of `explained`.

    What the estimate rests on is as exact as `belief`, and left out where that is not known.
    """
    case = Case(catalogue, record, belief)
    standing = Standing.of(case, now, facts)
    found = {}
    for at in case.chosen:
        reasons = found[at] = [reason("best" if case.better(at) is None else "explored", language)]
        if standing is not None and at not in catalogue.silent.offers:
            foothold = standing.footholds[at]
            reasons += [reason("cold_start", language)] * foothold.cold
            reasons.append(reason(foothold.rung.code, language))
            reasons[-1].weight = foothold.weight
    return found


def _candidate(case: Case, story: Story, at: int, sds: dict[str, float]) -> decisions_pb2.Candidate:
    catalogue = case.catalogue
    offer = catalogue.offers[at]
    unmet = case.unmet[at]
    rules = [one.plain for one in unmet if not one.limit]
    candidate = decisions_pb2.Candidate(offer_id=offer.id, eligible=not rules, unmet_rules=rules)
    for one in unmet:
        told = {"layer": one.layer, "name": one.name, "expression": one.expression, "failed": one.failed}
        candidate.unmet.add(text=story.unmet(one), **told)
    worth = case.worth(at)
    shown = case.shown(at)
    if shown is not None and worth is not None:
        candidate.acceptance_probability = shown
        candidate.score = worth
        candidate.acceptance_probability_sd = sds.get(offer.id, 0.0)
    if at in case.chosen:
        candidate.rank, choice = case.chosen[at]
        candidate.propensity, candidate.acceptance_probability_sd = choice.propensity, choice.sd
    _fill_parts(case, story, at, candidate)
    why = story.reason(at)
    candidate.reasons.add(code=why.code, text=why.text, weight=why.worth)
    rung = story.rung(at)
    if rung is not None and not case.unmet[at]:
        candidate.reasons.add(code=rung.code, text=rung.text, weight=rung.worth)
    candidate.text = story.of_offer(at, why)
    held = case.held[at] if at not in case.chosen else []
    candidate.held_by.extend(dict.fromkeys(catalogue.holds.names[hold.limit] for hold in held))
    candidate.free_again_ms = free_again_ms(held)
    return candidate


def _fill_parts(case: Case, story: Story, at: int, candidate: decisions_pb2.Candidate) -> None:
    """Factors and contributions, where the belief has the offer."""
    catalogue, base_rate = case.catalogue, case.base_rate(at)
    if base_rate is None:
        return
    told = case.contributions(at)
    offer, gain, cost = catalogue.offers[at], case.gain(at), float(catalogue.costs[at])
    told_factors = catalogue.weighing.told(case.verdict, case.record.channel, at)
    channel = catalogue.config.channels[case.record.channel].id
    estimate = base_rate + sum(value for _, value in told)
    candidate.base_rate = base_rate
    candidate.factors.CopyFrom(
        decisions_pb2.Factors(
            estimate=estimate,
            context_weight=offer.context_weight.get(channel, 1.0) if case.standing.levers else 1.0,
            value=offer.value,
            lever=offer.lever if case.standing.levers else 1.0,
            contact_cost=cost,
            worth=case.worth_of(at, estimate),
            weight=case.weight(at),
            risk_customer=sum(one.amount for one in told_factors if one.source == "risk_customer"),
            risk_company=sum(one.amount for one in told_factors if one.source == "risk_company"),
            information=case.information(at),
            factors=[decisions_pb2.Factor(**one._asdict()) for one in told_factors],
            surcharge=case.surcharge(at),
            shadow_price=case.shadow_price(at),
        )
    )
    if at not in case.chosen:
        # Of a thousand offers with a hundred inputs each nobody reads all, and a message has its bound.
        most = max(EXPLAIN_OFFER_ENTRIES_MIN, EXPLAIN_ENTRIES_MAX // len(catalogue.offers))
        if len(told) > most:
            told = [*told[:most], (REST, sum(value for _, value in told[most:]))]
    for name, value in told:
        candidate.contributions.add(
            input=name, value=story.values.get(name, ""), probability=value, worth=value * gain
        )


def _sds(case: Case, now: Policy) -> dict[str, float]:
    """How sure the policy in service is of each offer, if it reads the same inputs."""
    if not case.readable or now.transform_version != case.record.transform_version:
        return {}
    _, sd = now.score(case.x[None])
    return dict(zip(now.offers, sd[0].tolist(), strict=True))
