"""The form of what weighs in arbitration: levers, context weights, risk, the guard, questions, slates, bundles."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from engine import limits
from engine.config_base import Id, Name, Part, Rule, Share
from features import text_hash

if TYPE_CHECKING:
    from engine.config_schema import Config, Fact, Offer

Location = tuple[int | str, ...]

OfferKindName = Literal["sale", "service", "retention", "question", "silence"]
Weight = Annotated[float, Field(ge=0, le=limits.WEIGHT_TIMES_MAX, allow_inf_nan=False)]
"""Scales the worth of an offer; the product of all is held at the same bound."""
Loss = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""An expected loss, in the catalogue's currency."""

KIND_WEIGHTS: dict[str, float] = {"retention": 1.5}
"""Weights by kind of a configuration that does not say: to keep a customer is worth more than to win one."""


class WeightRule(Part):
    """A factor for whom a rule holds. A rule that cannot be evaluated gives none."""

    when: Rule
    factor: Weight
    name: str = ""


class WidelyWeighed(WeightRule):
    """A factor for all offers of some kinds or categories; without a word for all offers."""

    kinds: tuple[OfferKindName, ...] = ()
    categories: tuple[Id, ...] = ()

    def of(self, offer: "Offer") -> bool:
        """Whether it is for this offer."""
        everywhere = not self.kinds and not self.categories
        return everywhere or offer.kind in self.kinds or offer.category in self.categories


class Weights(Part):
    """What kinds and categories count for, and rules for many offers at once."""

    kinds: dict[OfferKindName, Weight] = Field(default_factory=dict)
    categories: dict[Id, Weight] = Field(default_factory=dict)
    rules: tuple[WidelyWeighed, ...] = Field(default=(), max_length=limits.WEIGHT_RULES_MAX)

    def of(self, offer: "Offer") -> float:
        """What an offer counts for by its kind and category."""
        by_kind = self.kinds.get(offer.kind, KIND_WEIGHTS.get(offer.kind, 1.0))
        return by_kind * self.categories.get(offer.category, 1.0)


class RiskRule(Part):
    """A further loss for whom a rule holds. A rule that cannot be evaluated counts as holding."""

    when: Rule
    customer: Loss = 0.0
    company: Loss = 0.0
    name: str = ""


class Risk(Part):
    """What both sides must expect to lose if the offer is accepted."""

    customer: Loss = 0.0
    company: Loss = 0.0
    rules: tuple[RiskRule, ...] = Field(default=(), max_length=limits.WEIGHT_RULES_MAX)


class Asks(Part):
    """The fact that a question asks for, and how many customers give which answer; the others give none."""

    fact: Name
    answers: dict[str, Share] = Field(min_length=2, max_length=limits.QUESTION_ENTRIES_MAX)

    @model_validator(mode="after")
    def _at_most_all(self) -> "Asks":
        total = sum(self.answers.values())
        if total > 1.0 + 1e-9:
            raise ValueError(f"answers: expected shares of at most 1 together, got {total:g}")
        return self


class Bundle(Part):
    """The offers that an offer stands for; `with` in files."""

    offers: tuple[Id, ...] = Field(alias="with", min_length=2, max_length=limits.BUNDLE_OFFERS_MAX)


class Reach(Part):
    """Part of a catalogue."""

    kinds: tuple[OfferKindName, ...] = ()
    categories: tuple[Id, ...] = ()

    def has(self, offer: "Offer") -> bool:
        """Whether an offer is of it."""
        return offer.kind in self.kinds or offer.category in self.categories


class Guard(Part):
    """Whom to leave alone with what, whatever it is worth."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    when: Rule
    keeps: Reach = Reach(kinds=("sale",))
    lets: Reach = Reach()
    unknown: Literal["keeps", "lets"] = "keeps"

    def covers(self, offer: "Offer") -> bool:
        """Whether it keeps this offer back."""
        return self.keeps.has(offer) and not self.lets.has(offer)


class MostPer(Part):
    """How many offers of one answer may be of the same category or kind."""

    category: Annotated[int, Field(ge=1, le=limits.SLATE_MAX)] | None = None
    kind: Annotated[int, Field(ge=1, le=limits.SLATE_MAX)] | None = None


class SlateShape(Part):
    """What the offers of one answer must be together."""

    most_per: MostPer = MostPer()


def rules_of(config: "Config") -> Iterator[tuple[Location, str]]:
    """(place, expression) of every rule of this module in a configuration."""
    for at, offer in enumerate(config.offers):
        for name in ("levers", "context_weights"):
            rules: tuple[WeightRule, ...] = getattr(offer, name)
            yield from ((("offers", at, name, i, "when"), rule.when) for i, rule in enumerate(rules))
        yield from ((("offers", at, "risk", "rules", i, "when"), rule.when) for i, rule in enumerate(offer.risk.rules))
    yield from ((("weights", "rules", i, "when"), rule.when) for i, rule in enumerate(config.weights.rules))
    yield from ((("guard", i, "when"), guard.when) for i, guard in enumerate(config.guard))


def problems(config: "Config") -> Iterator[tuple[Location, str]]:
    """What does not fit together."""
    offers = {offer.id: offer for offer in config.offers}
    categories = {offer.category for offer in config.offers}
    facts = {fact.name: fact for fact in config.context}
    names: set[str] = set()
    for i, guard in enumerate(config.guard):
        if guard.name in names:
            yield ("guard", i, "name"), f"guard {guard.name!r} is already there"
        names.add(guard.name)
        for place, reach in (("keeps", guard.keeps), ("lets", guard.lets)):
            yield from _unknown(("guard", i, place, "categories"), reach.categories, categories)
        if not any(guard.covers(offer) for offer in config.offers):
            yield ("guard", i, "keeps"), "keeps no offer of the catalogue back"
    for i, rule in enumerate(config.weights.rules):
        yield from _unknown(("weights", "rules", i, "categories"), rule.categories, categories)
    yield from (
        (("weights", "categories", category), f"no offer is of category {category!r}")
        for category in config.weights.categories
        if category not in categories
    )
    asking = [offer.id for offer in config.offers if offer.asks is not None]
    if len(asking) > limits.QUESTION_OFFERS_MAX:
        yield ("offers",), f"{len(asking)} offers ask for facts, at most {limits.QUESTION_OFFERS_MAX} are allowed"
    for at, offer in enumerate(config.offers):
        most = config.weights.of(offer) * offer.lever * max((1.0, *offer.context_weight.values()))
        if most > limits.WEIGHT_TIMES_MAX:
            told = f"lever, context_weight and weights make {most:g} times"
            yield ("offers", at, "lever"), f"{told}, at most {limits.WEIGHT_TIMES_MAX:,} are allowed"
        if offer.kind == "silence":
            learnt = {"points", "rewards", "outcomes", "window"} & offer.model_fields_set
            yield from ((("offers", at, name), "nothing comes of silence: expected none") for name in sorted(learnt))
        if offer.asks is not None:
            if offer.kind != "question":
                yield ("offers", at, "asks"), f"an offer of kind {offer.kind} asks nothing: expected kind: question"
            fact = facts.get(offer.asks.fact)
            if fact is None:
                there = ", ".join(sorted(facts)) or "none"
                yield ("offers", at, "asks", "fact"), f"no fact {offer.asks.fact!r} in context; there are {there}"
            else:
                for answer in offer.asks.answers:
                    if answer_value(fact, answer) is None:
                        yield ("offers", at, "asks", "answers", answer), f"{answer!r} is no value of {fact.name}"
        if offer.bundle is not None:
            yield from (
                (("offers", at, *place), problem) for place, problem in _misbundled(offer, offer.bundle, offers)
            )


def answer_value(fact: "Fact", answer: str) -> float | None:
    """An answer as it stands in the value matrix; None if it is no value of the fact."""
    if fact.input is not None and fact.input.kind == "hashed":
        return text_hash(answer)
    if fact.type == "text":
        return float(fact.values.index(answer)) if answer in fact.values else None
    if fact.type == "flag":
        return {"true": 1.0, "false": 0.0}.get(answer.lower())
    try:
        value = float(answer)
    except ValueError:
        return None
    low, high = fact.range or (-1e12, 1e12)
    return value if low <= value <= high else None


def _misbundled(offer: "Offer", bundle: Bundle, offers: "dict[str, Offer]") -> Iterator[tuple[Location, str]]:
    if offer.kind == "silence":
        yield ("bundle",), "silence stands for nothing"
    for i, name in enumerate(bundle.offers):
        place = "bundle", "with", i
        member = offers.get(name)
        if member is None:
            yield place, f"no offer {name!r}"
        elif name == offer.id or member.bundle is not None or member.kind == "silence":
            yield place, f"{name!r}: expected another offer that is neither a bundle nor silence"
        elif bundle.offers.index(name) != i:
            yield place, f"{name!r} is already in it"
        elif not member.starts_ms <= offer.starts_ms < offer.ends_ms <= member.ends_ms:
            yield place, f"expected starts_ms and ends_ms of the bundle within those of {name!r}"


def _unknown(place: Location, named: tuple[str, ...], there: set[str]) -> Iterator[tuple[Location, str]]:
    for i, category in enumerate(named):
        if category not in there:
            yield (*place, i), f"no offer is of category {category!r}"
