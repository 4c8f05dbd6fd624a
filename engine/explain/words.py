"""The words of explanations, and the English ones; engine.explain.languages has the others.

A sentence that a language lacks is an error of the type checker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Words:
    """Templates of one language; docs/explanation.md says what stands in the braces."""

    # What an input was.
    about: str
    yes: str
    no: str
    not_known: str
    # What it added, and how such are told.
    part: str
    hashed: str
    combined: str
    by_points: str
    speaks_for: str
    speaks_against: str
    base_average: str
    base_middle: str
    # An offer.
    acceptance: str
    share_of_value: str
    rank: str
    estimate_only: str
    best: str
    explored: str
    explored_over_silence: str
    not_chosen: str
    not_chosen_unknown: str
    not_drawn: str
    not_drawn_silence: str
    worth_less_than_nothing: str
    not_eligible: str
    control_group: str
    rule_not_held: str
    rule_failed: str
    rule_named: str
    no_consent: str
    held_back: str
    offer_held_back: str
    offer_held_back_until: str
    wrong_channel: str
    no_treatment: str
    wrong_placement: str
    wrong_time: str
    layers: Mapping[str, str]
    # The decision.
    situation: str
    known: str
    unknown: str
    nothing_eligible: str
    all_held_back: str
    silence_drawn: str
    silence_best: str
    silence_explored: str
    silence_after: str
    degraded: str
    arms: str
    # What an estimate rests on.
    calibrated: str
    rung_points: str
    rung_category: str
    rung_own: str
    # What an offer weighs.
    weighs: str
    weight: str
    risk_customer: str
    risk_company: str
    information: str
    # What is not as it was.
    other_version: str
    disagrees: str
    points_later: str
    no_belief: str
    offers_unknown: str
    # For the agent.
    brief_offer: str
    brief_parameters: str
    brief_held: str
    brief_for: str
    brief_against: str
    brief_explored: str
    brief_nothing: str
    # What an answer says itself, by code of the reason; of a fallback, why there is one.
    in_answers: Mapping[str, str]


ENGLISH: Final = Words(
    about="about {value}",
    yes="yes",
    no="no",
    not_known="not known",
    part="{input} ({value}, {points:+.1f} points)",
    hashed="{value}, in column {column} of {columns}, which values can share",
    combined="several inputs together ({points:+.1f} points)",
    by_points="its points instead of outcomes ({points:+.1f} points)",
    speaks_for="For it: {parts}.",
    speaks_against="Against it: {parts}.",
    base_average="For the average customer, {estimated} is estimated at {base:.1%}.",
    base_middle="For a customer in the middle of all ranges, {estimated} is estimated at {base:.1%}.",
    acceptance="acceptance",
    share_of_value="share of its value",
    rank=(
        "Rank {rank}: {offer}, {estimated} estimated at {estimate:.1%} (± {sd:.1%}), expected worth {worth}, "
        "propensity {propensity:.3g}."
    ),
    estimate_only="{offer}: {estimated} estimated at {estimate:.1%}, expected worth {worth}.",
    best="Nothing else that could be chosen was expected to be worth more.",
    explored=(
        "Explored: {other} was expected to be worth {more} more; {offer} was drawn with propensity {propensity:.3g}."
    ),
    explored_over_silence=(
        "Explored: saying nothing was expected to be worth {more} more; {offer} was drawn with propensity "
        "{propensity:.3g}."
    ),
    not_chosen="Eligible, but expected to be worth {less} less than {chosen}.",
    not_chosen_unknown="{offer}: eligible, but not chosen.",
    not_drawn="Eligible and expected to be worth {more} more than {chosen}, but not drawn: the engine explores.",
    not_drawn_silence="Eligible and expected to be worth {worth}, but saying nothing was drawn: the engine explores.",
    worth_less_than_nothing="Eligible, but expected to be worth {less} less than saying nothing.",
    not_eligible="{offer}: not eligible, because {rules}.",
    control_group="{offer}: kept back by {group}, so that it can be measured what offers bring.",
    rule_not_held="{rule} did not hold",
    rule_failed="{rule} could not be evaluated",
    rule_named="{name} ({rule})",
    no_consent="{rule} asks for what needs the customer's consent, and {consent} was not given",
    held_back="{limit} kept it back",
    offer_held_back="{offer}: eligible, but kept back: {limits}.",
    offer_held_back_until="{offer}: eligible, but kept back until {until}: {limits}.",
    wrong_channel="it is not offered in channel {channel}",
    no_treatment="it has no treatment for channel {channel}",
    wrong_placement="it is not offered in placement {placement} of channel {channel}, or has no treatment for it",
    wrong_time="it was not within its starts_ms and ends_ms",
    layers={
        "eligibility": "eligibility",
        "applicability": "applicability",
        "suitability": "suitability",
        "trigger": "trigger",
        "contact_policy": "contact policy",
        "guard": "guard",
        "budget": "budget",
        "control_group": "control group",
        "channel": "",
        "placement": "",
        "treatment": "",
        "validity": "",
    },
    situation="For customer {customer}, {known}, {eligible} of {offers} offers were eligible in channel {channel}.",
    known="whose state was known",
    unknown="of whom nothing was known",
    nothing_eligible="There was nothing to choose from.",
    all_held_back="All that was eligible was kept back.",
    silence_drawn="Saying nothing was chosen with propensity {propensity:.3g}.",
    silence_best="No eligible offer was expected to be worth its contact.",
    silence_explored="Explored: {other} was expected to be worth {worth}.",
    silence_after="After that, saying nothing more was drawn with propensity {propensity:.3g}.",
    degraded="Degraded: {reason}.",
    arms="In experiments: {arms}.",
    calibrated="Of customers with such an estimate {shown:.1%} accepted.",
    rung_points=(
        "The estimate rests on points: {points:g} of them stand for {rate:.1%}, which weighs {strength:g} lessons "
        "against {lessons:.0f} so far."
    ),
    rung_category=(
        "The estimate rests on category {category}: {others:.0f} lessons of the others there, {own:.0f} of its own."
    ),
    rung_own="The estimate rests on {own:.0f} lessons of its own.",
    weighs="Weighed: {factors}.",
    weight="{name} × {times:g}",
    risk_customer="risk of the customer {loss} ({name})",
    risk_company="risk of the company {loss} ({name})",
    information="Knowing the answer is worth {amount}.",
    other_version=(
        "Policy {version}, which decided, is no longer kept; policy {used}, the nearest one, explains. What was "
        "chosen is as decided; contributions and offers that were not chosen are approximate."
    ),
    disagrees=(
        "Policy {used} as it is kept does not give the estimates of the record; what was chosen is as decided, "
        "contributions and offers that were not chosen are approximate."
    ),
    points_later="What points of offers that were not chosen weigh is told by the policy in service now.",
    no_belief="No policy is kept that saw these inputs: what each of them contributed cannot be told.",
    offers_unknown="Policy {used} does not know {offers}: what these were expected to be worth cannot be told.",
    brief_offer="Offer {offer}.",
    brief_parameters="With {parameters}.",
    brief_held="This is promised until {date}.",
    brief_for="What speaks for it: {parts}.",
    brief_against="What speaks against it: {parts}.",
    brief_explored="It is being tried out: {other} was expected to be worth {more} more.",
    brief_nothing="Offer nothing now.",
    in_answers={
        "best": "The highest expected worth among the eligible offers.",
        "explored": "Chosen to learn: another offer was expected to be worth more, but not surely.",
        "cold_start": "Few outcomes of this offer are known: the estimate leans on all offers together.",
        "points": "The estimate rests on the customer's points: outcomes do not weigh as much yet.",
        "category": "The estimate rests on what other offers have taught, those of the same category first.",
        "own": "The estimate rests on the outcomes of this offer itself.",
        "resumed": "The customer goes on with an offer that is still open.",
        "not_eligible": "The rules leave no offer for this customer in this channel now.",
        "held_back": "The rules leave offers, but contact policy or another limit keeps all of them back for now.",
        "silence": "No offer is expected to be worth the contact.",
        "control_group": "Kept back: the customer is in a control group, to measure what offers bring.",
        "fallback": "{why}: from the catalogue's fallback list.",
        "no_fallback": "{why}, and no fallback offer may be made in this channel now.",
        "state_away": "The customer's state was not available in time",
        "commit_failed": "The decision could not be recorded in time",
        "deadline_near": "The decision was not ready before the caller's deadline",
    },
)


class Number(str):
    """A number as English writes it; another language changes its marks."""

    __slots__ = ()


def amount(worth: float) -> Number:
    """A worth in the catalogue's currency.

    >>> [amount(worth) for worth in (0.0123, 2.1, -1234567.0)]
    ['0.0123', '2.10', '-1,234,567']
    """
    if abs(worth) >= 1_000:
        return Number(f"{worth:,.0f}")
    return Number(f"{worth:.2f}" if abs(worth) >= 0.1 or worth == 0.0 else f"{worth:.3g}")
