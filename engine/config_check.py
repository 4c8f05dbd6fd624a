"""What must hold between the fields of a configuration; engine.config_schema checks each field by itself."""

from typing import Any

from engine import budgets_schema, limits, parameters, treatments, weights_schema
from engine.config_base import CUSTOMER
from engine.config_schema import Config, EventType, Feature, Offer, key_of
from engine.contact_schema import problems_of_contacts
from engine.defaults_schema import fallback_problems
from engine.experiments_schema import problems as problems_of_experiments
from engine.featuretrial import misasked, misgiven
from engine.rules_check import nearest, rule_problems
from engine.terms import MILLIONTHS
from features import CLOCK_NAMES, ExpressionError, FeatureSpec, clock_of, compile_cel
from features import validate as validate_features
from models import OPTIMISM_MAX

Location = tuple[int | str, ...]
"""Where in the configuration: keys and places in lists, from the outside in."""

# Words that CEL keeps for itself: as names they could not be used in a rule.
_CEL_WORDS = frozenset(
    (  # noqa: SIM905  # a list of 40 quoted words would be read by nobody
        "true false null in as break const continue else for function if import let loop package namespace return var "
        "void while size has all exists exists_one map filter int uint double string bool bytes timestamp duration type"
    ).split(" ")
)


_SERVING_MAX = 0.5
"""Share of the customers that challengers may serve together: the champion has most of them."""
_OF_TEXTS = ("one_hot", "hashed")
_KINDS_COUNTED = ("number", "flag")
_KINDS_TOLD_APART = ("number", "text", "flag")
_INPUT_OF_FACT = "expected kind one_hot or hashed for a text, linear or log for the others"
_VALUES_OF_TEXT = "a text attribute needs its values declared, or the feature input: {kind: hashed, columns: 64}"
_HASHED_OF_LISTED = "hashed is for texts of which any may come; these have values: expected kind one_hot"


def problems_of(config: Config) -> list[tuple[Location, str]]:
    """Everything that needs more than one field, as (place, what was expected)."""
    found: list[tuple[Location, str]] = []
    found += _repeated(config.channels, "channels", "id", "channel")
    found += _repeated(config.events, "events", "type", "event type")
    found += _repeated(config.offers, "offers", "id", "offer")
    found += _repeated(config.challengers, "challengers", "name", "challenger")
    channels = {channel.id for channel in config.channels}
    for at, channel in enumerate(config.channels):
        if len(set(channel.placements)) != len(channel.placements):
            found.append((("channels", at, "placements"), "expected each placement once"))
    if (serving := sum(one.serves for one in config.challengers)) > _SERVING_MAX:
        what = f"they serve {serving:g} of the customers together, at most {_SERVING_MAX:g} are allowed"
        found.append((("challengers",), what))
    found += _check_names(config)
    found += _check_features(config)
    found += _check_facts(config)
    found += _check_timelines(config)
    found += _check_identities(config)
    found += _check_rollups(config)
    events = _events(config)
    attributes = {event.type: {name: a.type for name, a in event.attributes.items()} for event in events.values()}
    found += problems_of_experiments(config.experiments, channels, {o.category for o in config.offers}, attributes)
    found += treatments.problems_of(config)
    found += parameters.problems_of(config)
    keys: dict[int, str] = {}
    for at, offer in enumerate(config.offers):
        other = keys.setdefault(key_of(offer.id), offer.id)
        if other != offer.id:
            found.append((("offers", at, "id"), f"{offer.id!r} and {other!r} have the same 32-bit key; rename one"))
        if offer.starts_ms >= offer.ends_ms:
            found.append((("offers", at, "ends_ms"), "expected a time after starts_ms"))
        found += [(("offers", at, *place), problem) for place, problem in _misworth(offer)]
        named: list[tuple[Location, str]] = [(("offers", at, "channels", i), c) for i, c in enumerate(offer.channels)]
        named += [(("offers", at, "context_weight", c), c) for c in offer.context_weight]
        named += [
            (("offers", at, "treatments", i, "channel"), t.channel) for i, t in enumerate(offer.treatments) if t.channel
        ]
        found += [
            (loc, f"no channel {c!r}; there are {', '.join(sorted(channels))}") for loc, c in named if c not in channels
        ]
    found += budgets_schema.problems_of(config.budgets, {offer.id: offer.category for offer in config.offers})
    offers = {offer.id for offer in config.offers}
    found += fallback_problems(config)
    found += rule_problems(config)
    found += problems_of_contacts(config)
    found += weights_schema.problems(config)
    return found + _check_exploration(config, channels, offers)


def _check_exploration(config: Config, channels: set[str], offers: set[str]) -> list[tuple[Location, str]]:
    budget, place = config.exploration.budget, ("exploration", "budget")
    found: list[tuple[Location, str]] = [
        ((*place, "channels", c), f"no channel {c!r}; there are {', '.join(sorted(channels))}")
        for c in budget.channels
        if c not in channels
    ]
    found += [((*place, "offers", o), f"no offer {o!r}") for o in budget.offers if o not in offers]
    given, method = config.exploration.model_fields_set, config.exploration.method
    if "epsilon" in given and method != "epsilon_greedy":
        found.append((("exploration", "epsilon"), f"method {method} has none; expected method: epsilon_greedy"))
    tuned = config.exploration.strength == "tuned"
    if tuned and method != "thompson":
        found.append((("exploration", "strength"), f"method {method} is not tuned; expected method: thompson"))
    if "tuning" in given and not tuned:
        found.append((("exploration", "tuning"), "the strength is given; expected strength: tuned"))
    if "optimism" in given and method != "thompson":
        found.append((("exploration", "optimism"), f"method {method} has none; expected method: thompson"))
    optimism, strength = config.exploration.optimism, config.exploration.strength
    if strength != "tuned" and optimism > OPTIMISM_MAX * strength:
        least = f"{optimism / OPTIMISM_MAX:g}"
        found.append((("exploration", "strength"), f"{strength:g}: expected {least} or more with this optimism"))
    if "floor" in given and method == "epsilon_greedy":
        found.append((("exploration", "floor"), "method epsilon_greedy has epsilon instead"))
    return found


def _misworth(offer: Offer) -> list[tuple[Location, str]]:
    """Where the stages and the rewards of an offer do not fit together."""
    found: list[tuple[Location, str]] = []
    if offer.outcomes.accepted.window is not None and "window" in offer.model_fields_set:
        found.append((("outcomes", "accepted", "window"), "the offer has a window, too; expected one of them"))
    if offer.answer_window > (offer.outcomes.fulfilled.window or limits.TIME_MS_MAX):
        place = "outcomes", "fulfilled", "window"
        found.append((place, f"expected no less than the {offer.answer_window} ms in which the customer may answer"))
    if offer.rewards is not None:
        low, high = offer.rewards
        # Rewards are counted in millionths.
        if not (low <= 0 < round(offer.value * MILLIONTHS) and offer.value <= high):
            expected = f"expected [low, high] with low ≤ 0 and the value, {offer.value:g}, from 0.000001 to high"
            found.append((("rewards",), f"{[low, high]}: {expected}"))
    return found


def _repeated(entries: tuple[Any, ...], place: str, attribute: str, what: str) -> list[tuple[Location, str]]:
    first: dict[str, int] = {}
    found: list[tuple[Location, str]] = []
    for at, entry in enumerate(entries):
        name = getattr(entry, attribute)
        if first.setdefault(name, at) != at:
            found.append(((place, at, attribute), f"{what} {name!r} is already there as {place}[{first[name]}]"))
    return found


def _check_names(config: Config) -> list[tuple[Location, str]]:
    """Features, facts and segments share one space of names: what is a variable in rules is never ambiguous."""
    found: list[tuple[Location, str]] = []
    seen: dict[str, str] = {}
    named: list[tuple[str, int, str]] = [
        ("features", at, one.name) for at, feature in enumerate(config.features) for one in feature.one_each()
    ]
    named += [("context", at, f.name) for at, f in enumerate(config.context)]
    named += [("segments", at, s.name) for at, s in enumerate(config.segments)]
    for place, at, name in named:
        if name in _CEL_WORDS:
            found.append(((place, at, "name"), f"{name!r} is a word of the rule language; choose another name"))
        here = f"{place}[{at}]"
        if seen.setdefault(name, here) != here:
            found.append(((place, at, "name"), f"the name {name!r} is already taken by {seen[name]}"))
    return found


def _events(config: Config) -> dict[str, EventType]:
    """The types of events; one that is there twice, which is told, has the attributes of both."""
    events: dict[str, EventType] = {}
    for event in config.events:
        before = events.get(event.type, event).attributes
        events[event.type] = event.model_copy(update={"attributes": {**event.attributes, **before}})
    return events


def _check_features(config: Config) -> list[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    events = _events(config)
    before: dict[str, list[FeatureSpec]] = {}
    for at, feature in enumerate(config.features):
        event = events.get(feature.event or "")
        told: list[tuple[Location, str]] = []
        if event is not None:
            told = _misfits(feature, event)
            found += [(("features", at, *place), problem) for place, problem in told]
        elif feature.function != "ratio":
            found.append((("features", at, "event"), f"no event type {feature.event!r}"))
            continue
        specs = [config.feature_spec(one) for one in feature.one_each()]
        try:
            validate_features([*before.get(feature.entity, []), *specs])
            before.setdefault(feature.entity, []).extend(specs)
        except ValueError as error:
            problem = str(error)
            # A name that is there twice is told with the place of the other one.
            if "the name is used twice" not in problem and not any(problem.endswith(each) for _, each in told):
                found.append((("features", at), problem))
    if len(config.all_features) > limits.FEATURES_MAX:
        found.append((("features",), f"{len(config.all_features)} features, at most {limits.FEATURES_MAX} are allowed"))
    try:
        clock_of(config.timezone)
    except ValueError as error:
        found.append((("timezone",), str(error)))
    return found


def _misfits(feature: Feature, event: EventType) -> list[tuple[Location, str]]:
    """Where a feature asks its event for what it does not have."""
    found: list[tuple[Location, str]] = list(misasked(feature, event.attributes))
    distinct = feature.function == "distinct"
    named = [("attribute", feature.attribute), ("by", feature.by.attribute if feature.by else None)]
    named += [("where", name) for name in (feature.where if isinstance(feature.where, dict) else ())]
    for place, expression in (("value", feature.value), ("where", feature.where)):
        if isinstance(expression, str):
            try:
                program = compile_cel(expression)
            except ExpressionError as error:
                found.append(((place,), str(error)))
                continue
            variables = [name for name in program.variables() if name not in CLOCK_NAMES]
            named += [(place, name) for name in variables]
            if all(name in event.attributes for name in variables):
                kinds = ("flag",) if place == "where" else _KINDS_TOLD_APART if distinct else _KINDS_COUNTED
                if problem := misgiven(expression, program, event.attributes, kinds):
                    found.append(((place,), problem))
    found += [
        ((place,), f"event {event.type!r} has no attribute {name!r}")
        for place, name in named
        if name and name not in event.attributes
    ]
    attribute = event.attributes.get(feature.attribute or "")
    text = attribute is not None and attribute.type == "text"
    remembered = feature.function in ("last", "first")
    if text and not remembered and not distinct:
        found.append((("function",), "a text can only be remembered or told apart: expected last, first or distinct"))
    hashed = feature.input is not None and feature.input.kind == "hashed"
    if text and remembered and attribute is not None and not (attribute.values or hashed):
        found.append((("attribute",), _VALUES_OF_TEXT))
    if feature.input is not None and (feature.input.kind in _OF_TEXTS) != (text and remembered):
        found.append((("input",), "expected kind one_hot or hashed for a text, linear or log for a number"))
    elif hashed and attribute is not None and attribute.values:
        found.append((("input",), _HASHED_OF_LISTED))
    listed = attribute.values if text and remembered and attribute is not None else ()
    if isinstance(feature.default, str) and listed and feature.default not in listed:
        there = f"{', '.join(listed)}{nearest(feature.default, listed)}"
        found.append((("default",), f"expected one of the declared values, got {feature.default!r}; there are {there}"))
    elif isinstance(feature.default, str) and not (listed or hashed):
        found.append((("default",), f"expected a number, got {feature.default!r}"))
    elif hashed and isinstance(feature.default, float):
        found.append((("default",), f"expected a text, got {feature.default:g}"))
    return found


def _check_facts(config: Config) -> list[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    kinds: dict[str, tuple[type, ...]] = {"number": (int, float), "text": (str,), "flag": (bool,)}
    # What names an entity, or is said in a treatment, is no value to be counted.
    names = {entity.fact for entity in config.entities} | treatments.facts_said(config)
    for at, fact in enumerate(config.context):
        kind = None if fact.input is None else fact.input.kind
        if kind is not None and (kind in _OF_TEXTS) != (fact.type == "text"):
            found.append((("context", at, "input"), _INPUT_OF_FACT))
        if kind == "hashed" and fact.values:
            found.append((("context", at, "input"), _HASHED_OF_LISTED))
        elif kind == "hashed":
            pass
        elif fact.type == "text" and not fact.values and (fact.name not in names or fact.input is not None):
            found.append((("context", at), "a text fact needs its values declared; any other value counts as missing"))
        default = fact.default
        fits = isinstance(default, kinds[fact.type]) and (fact.type == "flag" or not isinstance(default, bool))
        if default is not None and not fits:
            found.append((("context", at, "default"), f"expected a {fact.type}, got {default!r}"))
        elif fact.values and default is not None and default not in fact.values:
            found.append((("context", at, "default"), f"expected one of {', '.join(fact.values)}"))
    return found


def _check_identities(config: Config) -> list[tuple[Location, str]]:
    found = _repeated(config.identities, "identities", "kind", "identity kind")
    found += _repeated(config.entities, "entities", "kind", "entity kind")
    texts = {name for event in config.events for name, a in event.attributes.items() if a.type == "text"}
    taken: dict[str, int] = {}
    for at, entity in enumerate(config.entities):
        if entity.attribute is None:
            continue
        place: Location = ("entities", at, "attribute")
        if entity.attribute not in texts:
            found.append((place, f"no event type has a text attribute {entity.attribute!r}"))
        elif taken.setdefault(entity.attribute, at) != at:
            found.append((place, f"{entity.attribute!r} is already that of entities[{taken[entity.attribute]}]"))
    return found


def _check_rollups(config: Config) -> list[tuple[Location, str]]:
    """Features of entities: whose an event is and whose a decision reads must be known."""
    found: list[tuple[Location, str]] = []
    events = _events(config)
    facts = {fact.name: fact.type for fact in config.context}
    kinds = {entity.kind: (at, entity) for at, entity in enumerate(config.entities)}
    rolled = {feature.entity for feature in config.features}
    for at, entity in enumerate(config.entities):
        if entity.fact is not None and facts.get(entity.fact) != "text":
            found.append((("entities", at, "fact"), f"context has no text fact {entity.fact!r}"))
        if entity.kind == CUSTOMER:
            found.append((("entities", at, "kind"), f"{CUSTOMER!r} is whose features are without entity; rename it"))
        elif entity.many and entity.kind in rolled and (entity.attribute is None or entity.fact is None):
            missing = "attribute, by which events" if entity.attribute is None else "fact, by which callers"
            found.append((("entities", at), f"a customer has many, a feature is of one: expected {missing} tell it"))
    for at, feature in enumerate(config.features):
        if feature.entity == CUSTOMER:
            continue
        if feature.entity not in kinds:
            there = ", ".join((CUSTOMER, *kinds))
            found.append((("features", at, "entity"), f"no entity kind {feature.entity!r}; there are {there}"))
            continue
        _, entity = kinds[feature.entity]
        event = events.get(feature.event or "")
        if event is not None and entity.many and entity.attribute and entity.attribute not in event.attributes:
            lacks = f"event {event.type!r} has no attribute {entity.attribute!r}"
            found.append((("features", at, "event"), f"{lacks}, which says of which {entity.kind} it is"))
    return found


def _check_timelines(config: Config) -> list[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    for at, event in enumerate(config.events):
        entry, place = event.timeline, ("events", at, "timeline")
        if entry is None:
            continue
        for name, where in entry.named().items():
            if name not in event.attributes:
                found.append(((*place, *where), f"event {event.type!r} has no attribute {name!r}"))
        if len(event.kept()) > limits.TIMELINE_ATTRIBUTE_ENTRIES_MAX:
            most = f"at most {limits.TIMELINE_ATTRIBUTE_ENTRIES_MAX} are kept; name those to be kept in text"
            found.append((place, f"{len(event.kept())} attributes, {most}"))
        complaint = entry.kind == "complaint"
        if complaint and not entry.case and not entry.same:
            found.append((place, "complaints need case or same, or every one of them would be a case of its own"))
        if not complaint:
            given = entry.model_fields_set & {"case", "same", "within", "closes"}
            found += [((*place, name), "only complaints have it: expected kind: complaint") for name in sorted(given)]
    return found
