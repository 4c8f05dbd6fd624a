"""The form of a configuration: what may stand in it, field by field. What needs more than one field is in
engine.config_check, reading files in engine.config.
"""

import math
import re
from functools import cached_property
from typing import Annotated, Any, Final, Literal
from unicodedata import combining, normalize
from zlib import crc32

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from engine import limits
from engine.budgets_schema import Budget
from engine.config_base import (
    CUSTOMER,
    DurationMs,
    Finite,
    Id,
    Language,
    Name,
    Part,
    Rule,
    Share,
    TimeMs,
    ValueKind,
)
from engine.contact_schema import ContactPolicy
from engine.defaults_schema import FallbackOffers, SignedDefaults
from engine.experiments_schema import Experiment
from engine.groups import Group
from engine.parameters_schema import Parameter
from engine.rules_schema import CustomerLocation, GlobalRule, LayerRules, Place, Trigger
from engine.versions_schema import Governance
from engine.weights_schema import Asks, Bundle, Guard, OfferKindName, Risk, SlateShape, Weight, WeightRule, Weights
from features import FeatureSpec, Function, text_hash
from models import HASHED_COLUMNS_MAX


class Clock(Part):
    """How far a time that a caller gives may lie from the server's clock."""

    future: DurationMs = 300_000
    past: DurationMs = 30 * 86_400_000


class Channel(Part):
    """A channel and the places in it where offers are shown."""

    id: Id
    placements: tuple[Id, ...] = ()
    format: Literal["text", "html"] = "text"
    """What treatments are here: the values of their tokens are escaped for it."""


class Input(Part):
    """How a value enters the model: numbers scaled from `range` to −1..1, texts as one column a value, or hashed into
    a number of columns."""

    kind: Literal["linear", "log", "one_hot", "hashed"] = "linear"
    range: tuple[Finite, Finite] = (0.0, 1.0)
    columns: int | None = None
    """Of `hashed`: how many it has; a power of two."""
    signed: bool = False
    """Of `hashed`: whether the hash says the sign of its column, too."""
    names: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=limits.HASHED_NAME_ENTRIES_MAX)
    ] = ()
    """Of `hashed`: texts that explanations may name, where the state of a customer has nothing but their hash."""

    @model_validator(mode="after")
    def _ordered(self) -> "Input":
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)}: expected [low, high] with low < high")
        return self

    @model_validator(mode="after")
    def _hashed_alone(self) -> "Input":
        given = sorted({"columns", "signed", "names"} & self.model_fields_set)
        if self.kind != "hashed":
            if given:
                raise ValueError(f"{', '.join(given)}: belong to kind hashed, this one is {self.kind}")
            return self
        if "range" in self.model_fields_set:
            raise ValueError("range: a hashed text has none")
        count, expected = self.columns, f"a power of two from 2 to {HASHED_COLUMNS_MAX}"
        if count is None:
            raise ValueError(f"kind hashed needs columns: expected {expected}")
        if not 2 <= count <= HASHED_COLUMNS_MAX or count & (count - 1):
            raise ValueError(f"columns {count}: expected {expected}")
        return self


class Attribute(Part):
    """A declared value: of an event, or of a conversation."""

    type: ValueKind
    required: bool = False
    range: tuple[Finite, Finite] | None = None
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Attribute":
        if self.values and self.type != "text":
            raise ValueError("values: only a text has them")
        if self.range and self.type != "number":
            raise ValueError("range: only a number has one")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)}: expected [low, high] with low < high")
        if len(set(self.values)) != len(self.values):
            raise ValueError("values: expected each one once")
        return self


class Fact(Attribute):
    """A fact of the conversation that a caller may pass as context."""

    name: Name
    default: Finite | bool | str | None = None
    input: Input | None = None
    consent: Name | None = None
    """The flag among the facts without which this one is neither used nor kept."""


PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""An attribute in a text of the timeline: {name}."""


def _text_with_placeholders(text: str) -> str:
    if brace := re.search(r"[{}]", PLACEHOLDER.sub("", text)):
        raise ValueError(f"{brace[0]!r} stands alone: expected attributes as {{name}}, without format")
    return text


TextWithPlaceholders = Annotated[str, Field(max_length=500), AfterValidator(_text_with_placeholders)]


class OnTimeline(Part):
    """How events of a type stand on the customer's timeline."""

    kind: Literal["contact", "complaint", "note", "use", "satisfaction"] = "use"
    channel: TextWithPlaceholders = ""
    text: TextWithPlaceholders = ""
    author: Name | None = None
    case: Name | None = None
    same: tuple[Name, ...] = ()
    within: DurationMs = 7 * 86_400_000
    closes: bool | Annotated[dict[Name, Finite | bool | str], Field(min_length=1)] = False

    def named(self) -> dict[str, tuple[str | int, ...]]:
        """Attributes that it names, what tells complaints apart first, each with its place in here."""
        closing = self.closes if isinstance(self.closes, dict) else {}
        named: list[tuple[str | None, tuple[str | int, ...]]] = [(self.case, ("case",))]
        named += [(name, ("same", at)) for at, name in enumerate(self.same)]
        named += [(name, ("closes", name)) for name in closing]
        named += [(self.author, ("author",))]
        for field, text in (("channel", self.channel), ("text", self.text)):
            named += [(name, (field,)) for name in PLACEHOLDER.findall(text)]
        found: dict[str, tuple[str | int, ...]] = {}
        for name, place in named:
            if name:
                found.setdefault(name, place)
        return found


def _on_timeline(value: object) -> object:
    return {} if value is True else None if value is False else value


class EventType(Part):
    """A type of event and its attributes."""

    type: Id
    attributes: dict[Name, Attribute] = Field(default_factory=dict, max_length=limits.CONTEXT_ENTRIES_MAX)
    timeline: Annotated[OnTimeline | None, BeforeValidator(_on_timeline)] = None

    def kept(self) -> tuple[str, ...]:
        """Attributes that the timeline keeps: those that it names, and all if it has no text."""
        if self.timeline is None:
            return ()
        named = self.timeline.named()
        return tuple(named if self.timeline.text else dict.fromkeys([*named, *self.attributes]))


class Segment(Part):
    """A name for the customers for whom a rule holds."""

    name: Name
    when: Rule


class ByValue(Part):
    """One feature for each of some values of an attribute: `spent` by category becomes spent_food, spent_rent …"""

    attribute: Name
    values: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=limits.FEATURES_MAX)

    @staticmethod
    def suffix(value: str) -> str:
        """What a value adds to the name of the feature.

        >>> ByValue.suffix("Food & Drink"), ByValue.suffix("Žižkov"), ByValue.suffix("食")
        ('food_drink', 'zizkov', '')
        """
        apart = normalize("NFKD", value.lower())  # letters apart from their accents
        return re.sub(r"[^a-z0-9]+", "_", "".join(one for one in apart if not combining(one))).strip("_")

    @model_validator(mode="after")
    def _told_apart(self) -> "ByValue":
        first: dict[str, str] = {}
        for value in self.values:
            suffix = self.suffix(value)
            if not suffix:
                expected = "expected a value with letters a-z or digits, or a feature of its own with where"
                raise ValueError(f"values: nothing of {value!r} can stand in the name of a feature; {expected}")
            if suffix in first:
                same = f"the names of the features of {first[suffix]!r} and {value!r} both end in _{suffix}"
                raise ValueError(f"values: {same}; expected values with different letters or digits")
            first[suffix] = value
        return self


class IdentityKind(Part):
    """A kind of trace by which a customer is known, and which is linked to the customer who comes with it."""

    kind: Id


class EntityKind(Part):
    """A kind of thing that customers belong to, such as a household."""

    kind: Id
    attribute: Name | None = None
    many: bool = False
    fact: Name | None = None
    """The fact of a conversation that names the entity whose features a decision reads."""


class Feature(Part):
    """A feature: what it counts, sums or remembers of one type of event, and how it enters the model."""

    name: Name
    entity: Id = CUSTOMER
    """Whose events it takes: those of the customer, or of all who belong to the same entity of a declared kind."""
    event: Id | None = None
    function: Function
    attribute: Name | None = None
    value: Annotated[str, Field(min_length=1)] | None = None
    where: dict[Name, Finite | bool | str] | Annotated[str, Field(min_length=1)] = Field(default_factory=dict)
    by: ByValue | None = None
    window: DurationMs | None = None
    tile: DurationMs | None = None
    half_life: DurationMs | None = None
    numerator: Name | None = None
    denominator: Name | None = None
    default: Finite | str | None = None
    """A number; of a text also one of its values, of a hashed one any text."""
    resolution: Annotated[float, Field(gt=0, le=1e6)] = 1e-6
    meaning: str = ""
    unit: str = ""
    owner: str = ""
    input: Input | None = None

    def one_each(self) -> tuple["Feature", ...]:
        """The feature itself, or one for each value that it is `by`."""
        if self.by is None:
            return (self,)
        assert isinstance(self.where, dict), "checked below"
        return tuple(
            self.model_copy(
                update={
                    "name": f"{self.name}_{ByValue.suffix(value)}",
                    "by": None,
                    "where": {**self.where, self.by.attribute: value},
                }
            )
            for value in self.by.values
        )

    @model_validator(mode="after")
    def _by_needs_pairs(self) -> "Feature":
        if self.by is not None and isinstance(self.where, str):
            raise ValueError("where: expected attributes and their values beside by, not an expression")
        return self


class Treatment(Part):
    """What to say or show, in one channel, placement and language or in any."""

    text: Annotated[str, Field(min_length=1, max_length=2_000)]
    channel: Id | None = None
    placements: tuple[Id, ...] = ()
    """Only there, each as channel/placement."""
    language: Language | None = None


class SeenOutcome(Part):
    """What it is worth that an offer was seen or clicked, when no answer came of it within the window."""

    reward: Share = 0.0


class AcceptedOutcome(Part):
    """What an acceptance is worth, and until when after the decision it may come."""

    window: DurationMs | None = None
    reward: Share = 1.0


class FulfilledOutcome(Part):
    """What it is worth that an accepted offer was delivered, and for how long after the decision that is waited for."""

    window: DurationMs | None = None
    reward: Share | None = None


class Outcomes(Part):
    """Stages of an offer that are worth something, as shares of its value."""

    presented: SeenOutcome = SeenOutcome()
    clicked: SeenOutcome = SeenOutcome()
    accepted: AcceptedOutcome = AcceptedOutcome()
    fulfilled: FulfilledOutcome = FulfilledOutcome()

    @property
    def fulfilled_reward(self) -> float:
        """What a delivery is worth; without another word all of it."""
        return 1.0 if self.fulfilled.reward is None else self.fulfilled.reward

    @property
    def _worth(self) -> tuple[float, ...]:
        return self.presented.reward, self.clicked.reward, self.accepted.reward, self.fulfilled_reward

    @property
    def plain(self) -> bool:
        """Whether a yes is 1, a no is 0 and nothing is waited for after an acceptance."""
        return self._worth == (0.0, 0.0, 1.0, 1.0) and self.fulfilled.window is None

    @model_validator(mode="after")
    def _grows(self) -> "Outcomes":
        worth = self._worth
        if list(worth) != sorted(worth):
            told = ", ".join(map(str, worth))
            raise ValueError(f"rewards {told}: expected presented ≤ clicked ≤ accepted ≤ fulfilled")
        return self


class PointsRule(Part):
    """What adds points."""

    when: Rule
    points: Finite


class Points(Part):
    """Points that stand for the acceptance of a new offer, until lessons do."""

    rules: tuple[PointsRule, ...] = Field(min_length=1, max_length=limits.POINTS_RULES_MAX)
    rate_at: dict[Finite, Share]
    """Rates by points; between two of them on a straight line, beyond the ends as at the end."""
    strength: Annotated[float, Field(gt=0, le=1e6)] = 20.0
    """Lessons that the rate weighs."""

    @model_validator(mode="after")
    def _grows(self) -> "Points":
        if not 2 <= len(self.rate_at) <= limits.POINTS_RULES_MAX:
            raise ValueError(f"rate_at: expected two places or more, at most {limits.POINTS_RULES_MAX}")
        rates = [rate for _, rate in sorted(self.rate_at.items())]
        if rates != sorted(rates):
            told = ", ".join(f"{at:g}: {rate:g}" for at, rate in sorted(self.rate_at.items()))
            raise ValueError(f"rate_at {{{told}}}: expected no smaller rate for more points")
        return self


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Offer(Part):
    """One action that can be offered."""

    id: Id
    kind: OfferKindName = "sale"
    group: Annotated[tuple[Id, ...], BeforeValidator(_several)] = ()
    category: Id = "general"
    value: Finite
    contact_cost: Annotated[Finite, Field(ge=0)] = 0.0
    lever: Weight = 1.0
    levers: tuple[WeightRule, ...] = Field(default=(), max_length=limits.WEIGHT_RULES_MAX)
    context_weight: dict[Id, Weight] = Field(default_factory=dict)
    context_weights: tuple[WeightRule, ...] = Field(default=(), max_length=limits.WEIGHT_RULES_MAX)
    risk: Risk = Risk()
    asks: Asks | None = None
    bundle: Bundle | None = None
    channels: tuple[Id, ...] = ()
    placements: tuple[Id, ...] = ()
    """Each as channel/placement: in the channels named here it is made in these places alone."""
    eligibility: LayerRules = ()
    applicability: LayerRules = ()
    suitability: LayerRules = ()
    triggers: tuple[Trigger, ...] = Field(default=(), max_length=16)
    treatments: tuple[Treatment, ...] = Field(min_length=1)
    parameters: dict[Name, Parameter] = Field(default_factory=dict, max_length=limits.PARAMETER_ENTRIES_MAX)
    price_held_for: DurationMs | None = None
    """How long after the decision its parameters stay as they were."""
    window: DurationMs = 7 * 86_400_000
    outcomes: Outcomes = Outcomes()
    rewards: tuple[Finite, Finite] | None = None
    starts_ms: TimeMs = 0
    ends_ms: TimeMs = limits.TIME_MS_MAX
    explore: bool = True
    points: Points | None = None

    @property
    def answer_window(self) -> int:
        """How long the customer may answer, in milliseconds."""
        return self.outcomes.accepted.window or self.window


class ExplorationPerCustomer(Part):
    """How many answers that explore one customer may get in a time."""

    answers: Annotated[int, Field(ge=0, le=limits.EXPLORED_ENTRIES_MAX)]
    within: Annotated[DurationMs, Field(le=limits.CUSTOMER_KEY_TTL_MS)]


class ExplorationBudget(Part):
    """How much may be explored: by customer as a count, by channel and offer as shares."""

    customer: ExplorationPerCustomer | None = None
    share: Share = 1.0
    channels: dict[Id, Share] = Field(default_factory=dict)
    offers: dict[Id, Share] = Field(default_factory=dict)


ALARM_SURE: Final = 0.99
"""How sure it must be that a share is below or above its floor."""


class ExplorationAlarm(Part):
    """When exploration counts as dead."""

    decisions: Annotated[int, Field(ge=100, le=10_000_000)] = 10_000
    policy: Share = 0.001
    offer: Share = 0.0001

    @property
    def judged_after(self) -> tuple[float, float]:
        """(policy, offer) after how many decisions each is judged: so many that nothing at all is a sign, at least."""

        def telling(floor: float) -> float:
            return max(self.decisions, math.ceil(-math.log(1.0 - ALARM_SURE) / floor) if floor else math.inf)

        return telling(self.policy), telling(self.offer)


class ExplorationTuning(Part):
    """How a tuned strength is found: among these, judged after so many decisions, then twice as many, and so on."""

    strengths: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        Field(min_length=2, max_length=limits.TUNING_STRENGTH_ENTRIES_MAX),
    ] = (0.1, 0.3, 1.0)
    decisions: Annotated[int, Field(ge=500, le=10_000_000)] = 2_000

    @model_validator(mode="after")
    def _grow(self) -> "ExplorationTuning":
        if list(self.strengths) != sorted(set(self.strengths)):
            raise ValueError(f"strengths {list(self.strengths)}: expected each one larger than the one before")
        return self


class Exploration(Part):
    """How the engine tries what it does not know yet."""

    method: Literal["thompson", "inverse_gap", "epsilon_greedy", "greedy"] = "thompson"
    strength: Literal["tuned"] | Annotated[float, Field(ge=0, le=100)] = 1.0
    tuning: ExplorationTuning = ExplorationTuning()
    optimism: Annotated[float, Field(ge=0, le=10)] = 0.0
    floor: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    epsilon: Share = 0.1
    candidates: Annotated[int, Field(ge=2, le=64)] = 16
    budget: ExplorationBudget = ExplorationBudget()
    never: tuple[Rule, ...] = ()
    alarm: ExplorationAlarm | None = ExplorationAlarm()


class Drift(Part):
    """When the acceptance of an offer counts as changed, and what lessons from before it count then."""

    delta: Annotated[float, Field(gt=0, le=0.1)] = 0.002
    keeps: Share = 0.1
    recent: DurationMs = 7 * 86_400_000


class Learning(Part):
    """How outcomes become a policy."""

    prior_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    prior_strength: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    half_life: DurationMs | None = None
    period: DurationMs = 86_400_000
    drift: Drift | None = Drift()
    crosses: tuple[tuple[Name, Name], ...] = Field(default=(), max_length=limits.FEATURES_MAX)
    waves: Literal["auto"] | Annotated[int, Field(ge=0, lt=256)] = "auto"
    calibration: Literal["common", "per_offer"] = "common"
    """Whose outcomes say what estimates of an offer come to: those of all offers, or its own beside them."""


class RiverStep(Part):
    """An estimator of river, or any class with the same methods, and what it is made with."""

    river: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    parameters: dict[str, Any] = Field(default_factory=dict)


class OursModel(Part):
    """The engine's own model with other options; those that are not given are those of `learning`."""

    prior_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    prior_strength: Annotated[float, Field(gt=0, le=1e6)] | None = None
    half_life: DurationMs | None = None


class ChallengerModel(Part):
    """What estimates acceptance: a classifier of river, several steps of a pipeline, or the engine's own model."""

    river: tuple[RiverStep, ...] = Field(default=(), max_length=16)
    ours: OursModel | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_step(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("river"), str):
            step = {name: given[name] for name in ("river", "parameters") if name in given}
            return {**{name: value for name, value in given.items() if name not in step}, "river": [step]}
        return given

    @model_validator(mode="after")
    def _one_of_them(self) -> "ChallengerModel":
        if bool(self.river) == (self.ours is not None):
            raise ValueError("expected river or ours, one of them")
        return self


class Challenger(Part):
    """A model that is measured beside the one that serves."""

    name: Name
    mode: Literal["shadow", "apprentice"] = "shadow"
    model: ChallengerModel
    serves: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the customers whose decisions rest on it."""
    time: Annotated[float, Field(gt=0, le=0.5)] = 0.1

    @model_validator(mode="after")
    def _can_imitate(self) -> "Challenger":
        if self.mode == "apprentice" and self.model.ours is not None:
            raise ValueError("an apprentice learns what is decided, ours what comes of it: expected river, or shadow")
        if self.serves and self.model.ours is None:
            raise ValueError("serves: exploring needs beliefs with an uncertainty; expected ours, not river")
        return self


class Config(Part):
    """A whole configuration."""

    opportune: Literal[1]
    name: Id
    language: Language = "en"
    timezone: str = "UTC"
    governance: Governance = Governance()
    clock: Clock = Clock()
    limit: Annotated[int, Field(ge=1, le=limits.SLATE_MAX)] = 3
    silence: bool = True
    channels: tuple[Channel, ...] = Field(min_length=1, max_length=256)
    context: tuple[Fact, ...] = Field(default=(), max_length=limits.CONTEXT_FACTS_MAX)
    events: tuple[EventType, ...] = ()
    identities: tuple[IdentityKind, ...] = Field(default=(), max_length=limits.CONTEXT_ENTRIES_MAX)
    entities: tuple[EntityKind, ...] = Field(default=(), max_length=limits.CONTEXT_ENTRIES_MAX)
    features: tuple[Feature, ...] = Field(default=(), max_length=limits.FEATURES_MAX)
    segments: tuple[Segment, ...] = Field(default=(), max_length=limits.RULES_MAX)
    objectives: dict[Name, Finite] = Field(default_factory=dict, max_length=limits.OBJECTIVE_ENTRIES_MAX)
    places: tuple[Place, ...] = Field(default=(), max_length=limits.PLACE_ENTRIES_MAX)
    location: CustomerLocation | None = None
    rules: tuple[GlobalRule, ...] = Field(default=(), max_length=limits.RULES_MAX)
    groups: tuple[Group, ...] = Field(default=(), max_length=limits.OFFER_GROUP_ENTRIES_MAX)
    weights: Weights = Weights()
    guard: tuple[Guard, ...] = Field(default=(), max_length=limits.GUARD_RULES_MAX)
    slate: SlateShape = SlateShape()
    offers: tuple[Offer, ...] = Field(min_length=1, max_length=limits.OFFERS_MAX)
    budgets: tuple[Budget, ...] = Field(default=(), max_length=limits.BUDGET_ENTRIES_MAX)
    fallback: FallbackOffers = ()
    defaults: SignedDefaults = SignedDefaults()
    exploration: Exploration = Exploration()
    learning: Learning = Learning()
    challengers: tuple[Challenger, ...] = Field(default=(), max_length=limits.CHALLENGERS_MAX)
    experiments: tuple[Experiment, ...] = Field(default=(), max_length=limits.EXPERIMENT_ENTRIES_MAX)
    contact_policy: ContactPolicy | None = None

    @cached_property
    def all_features(self) -> tuple[Feature, ...]:
        """The features, those by value one by one: of customers first, then of each kind of entity."""
        rank = {kind: at for at, kind in enumerate((CUSTOMER, *(entity.kind for entity in self.entities)))}
        ones = (one for feature in self.features for one in feature.one_each())
        return tuple(sorted(ones, key=lambda one: rank.get(one.entity, len(rank))))

    @cached_property
    def hashed(self) -> dict[str, Input]:
        """The inputs of features and facts of which the model sees a hash, by name."""
        named = [(feature.name, feature.input) for feature in self.all_features]
        named += [(fact.name, fact.input) for fact in self.context]
        return {name: given for name, given in named if given is not None and given.kind == "hashed"}

    def feature_specs(self, entity: str = CUSTOMER) -> tuple[FeatureSpec, ...]:
        """The features of customers, or of a kind of entity, in the form that features.Layout compiles."""
        return tuple(self.feature_spec(feature) for feature in self.all_features if feature.entity == entity)

    def feature_spec(self, feature: Feature) -> FeatureSpec:
        """One feature in that form."""
        declared = next((event.attributes for event in self.events if event.type == feature.event), {})
        attribute = declared.get(feature.attribute) if feature.attribute else None
        categories = attribute.values if attribute is not None and feature.function in ("last", "first") else ()
        pairs = feature.where if isinstance(feature.where, dict) else {}
        default = feature.default
        if isinstance(default, str):
            default = float(categories.index(default)) if default in categories else text_hash(default)
        return FeatureSpec(
            name=feature.name,
            function=feature.function,
            event=feature.event or "",
            attribute=feature.attribute,
            value=feature.value,
            window_ms=feature.window,
            tile_ms=feature.tile,
            half_life_ms=feature.half_life,
            where=tuple(sorted(pairs.items())),
            condition=feature.where if isinstance(feature.where, str) else None,
            categories=categories,
            hashed=feature.input is not None and feature.input.kind == "hashed",
            numerator=feature.numerator,
            denominator=feature.denominator,
            default=float("nan") if default is None else default,
            resolution=feature.resolution,
            meaning=feature.meaning,
            unit=feature.unit,
            owner=feature.owner,
        )


def key_of(offer_id: str) -> int:
    """The 32-bit key by which records and ledgers name an offer. Distinct within a configuration (checked)."""
    return crc32(offer_id.encode())
