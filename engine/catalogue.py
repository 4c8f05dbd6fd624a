"""A configuration compiled for deciding: columns, rules, offers as arrays.

The value matrix of a batch has one column a feature, then one a fact: number as it is, text as the index of its value,
hashed text as its hash, flag as 0 or 1, NaN where it is missing. The model reads its inputs from it, the rules their
variables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from engine import weights_schema
from engine.arbitration import Arbitration
from engine.besidecurve import BesideCurve
from engine.budgets import Budgets
from engine.config import Places, load
from engine.config_base import CUSTOMER
from engine.config_schema import Attribute, Config, Fact, Input, Offer, OnTimeline, key_of
from engine.contact_policy import ContactPolicy
from engine.defaults import Fallbacks
from engine.errors import ConfigError
from engine.experiment_arms import Neutral
from engine.experiments import Experiments
from engine.explorer import Explorer
from engine.guard import WelfareGuard
from engine.hashed import HashedTexts
from engine.holds import Holder, Holds
from engine.identity import EntityKind
from engine.ladder import Ladder
from engine.parameters import Quoting, rule_problems
from engine.placements import Placements
from engine.questions import Questions
from engine.rollups import Rollup, rollups_of
from engine.rulebatch import RuleBatch
from engine.rulebook import OfferRule, RuleBook
from engine.rules import RuleError, Rules, Variable, words_of
from engine.rulevalues import RuleValues, Surroundings
from engine.segments import Segments
from engine.sharing import Sharing
from engine.silent import Silent
from engine.slates import bundles_of, caps_of
from engine.terms import Terms, terms_of
from engine.timeline import Keeper
from engine.treatments import Treatments
from engine.weights import Weighing
from features import FeatureSpec, Layout, text_hash
from models import DIMENSION_MAX, Caps, InputSpec, Structure, Transform

ANY_PLACEMENT: Final = 0
"""Index that a record keeps for "the channel as a whole"."""

OFFER_KINDS: Final = {"sale": 1, "service": 2, "retention": 3, "question": 4, "silence": 5}
"""Numbers of opportune.v1.OfferKind."""

WAVES_AUTO: Final = 64
"""Waves of a configuration that does not say how many. On 24 sets of data 128 win a little more, on the large ones."""

_NAN: Final = float("nan")


class OfferTable(NamedTuple):
    """Columns over n offers."""

    keys: NDArray[np.int64]
    windows_ms: NDArray[np.int64]
    silent: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the value matrix and how a rule sees it."""

    name: str
    kind: str
    """number, text, hashed or flag."""
    categories: tuple[str, ...] = ()
    default: float = _NAN

    def variable(self, value: float) -> Variable:
        """The variable that a rule gets for a value of this column.

        >>> Column("job", "text", ("clerk", "nurse")).variable(1.0)
        'nurse'
        """
        if self.kind == "number":
            return value
        if self.kind == "flag":
            return value == 1.0
        if self.kind == "hashed":
            return f"#{value:.0f}" if value >= 0.0 else ""
        return self.categories[int(value)] if value == value else ""


@dataclass(frozen=True)
class Catalogue:
    """A configuration, compiled. Immutable: a server swaps it whole."""

    config: Config
    version: str
    layout: Layout
    transform: Transform
    columns: tuple[Column, ...]
    rules: Rules
    offer_rules: tuple[tuple[OfferRule, ...], ...]
    """The rules of each offer, layer by layer."""
    rule_columns: tuple[Column, ...]
    """`columns`, and behind them those that only rules see."""
    surroundings: Surroundings
    """What those are made from."""
    offer_masks: tuple[int, ...]
    mask_words: NDArray[np.uint64]
    """(offers, words) the same as 64-bit words."""
    offers: tuple[Offer, ...]
    offer_ids: tuple[str, ...]
    offer_keys: tuple[int, ...]
    kinds: tuple[int, ...]
    index_of_key: Mapping[int, int]
    channel_index: Mapping[str, int]
    placement_index: Mapping[tuple[str, str], int]
    in_channel: NDArray[np.bool_]
    """(channels, offers) whether the offer may be made in some place there: allowed, with a treatment that fits."""
    weighing: Weighing
    """Weights and risks; who asks for what a score is made of asks `arbitration`."""
    costs: NDArray[np.float64]
    windows_ms: tuple[int, ...]
    treatments: Treatments
    """What is said of the offers, by place and language."""
    languages: frozenset[str]
    fact_columns: Mapping[str, int]
    """Column of each fact of the conversation."""
    facts: Mapping[str, Fact]
    segments: Segments
    rollups: tuple[Rollup, ...]
    """Features of what customers belong to, by kind."""

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The catalogue of a configuration. Raises ConfigError that names file, line and what was expected."""
        config, version, text = load(path)
        return cls.compile(config, version, text, str(path))

    @classmethod
    def compile(cls, config: Config, version: str, text: bytes = b"", name: str = "configuration") -> Self:
        """Compile. Raises ConfigError naming the line of `text` where a rule or an input is wrong."""

        places = Places(text)

        def problem(place: tuple[str | int, ...], error: Exception) -> ConfigError:
            where = name
            if text:
                line, place = places.of(place)
                where = f"{name}:{line}"
            return ConfigError(f"{where}: {'.'.join(map(str, place))}: {error}")

        layout = Layout.compile(config.feature_specs(), config.timezone)
        rollups = rollups_of(config)
        specs = [*layout.specs, *(spec for rollup in rollups for spec in rollup.layout.specs)]
        columns = [Column(spec.name, _kind_of(spec), spec.categories, spec.default) for spec in specs]
        fact_columns = {fact.name: len(columns) + at for at, fact in enumerate(config.context)}
        columns += [_fact_column(fact) for fact in config.context]
        declared: list[Input | None] = [feature.input for feature in config.all_features]
        declared += [fact.input for fact in config.context]
        inputs = [
            InputSpec(
                column.name, given.kind, *given.range, given.columns or len(column.categories), signed=given.signed
            )
            for column, given in zip(columns, declared, strict=True)
            if given is not None
        ]
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise ValueError("a name is declared twice")  # told by engine.config_check, with both places
        crosses, asked = config.learning.crosses, config.learning.waves
        try:
            transform = Transform.compile(inputs, names)
        except ValueError as error:
            raise problem(("features",), error) from error
        try:
            transform = Transform.compile(inputs, names, crosses=crosses)
            auto = min(WAVES_AUTO, DIMENSION_MAX - transform.dimension) if inputs else 0
            waves = auto if asked == "auto" else asked
            transform = Transform.compile(inputs, names, crosses=crosses, waves=waves)
        except ValueError as error:
            raise problem(("learning",), error) from error
        samples = {column.name: _sample(column) for column in columns}
        never = config.exploration.never
        others: list[tuple[tuple[str | int, ...], str]] = [
            (("exploration", "never", at), rule) for at, rule in enumerate(never)
        ]
        others += [
            (("offers", at, "points", "rules", i, "when"), rule.when)
            for at, offer in enumerate(config.offers)
            for i, rule in enumerate(offer.points.rules if offer.points else ())
        ]
        others += weights_schema.rules_of(config)
        book = RuleBook(config, {column.name: at for at, column in enumerate(columns)}, samples)
        book.read_other(others)
        problems = [str(problem(place, error)) for place, error in book.problems]
        said = {column.name: samples[column.name] for column in columns if column.kind != "hashed"}
        problems += [str(problem(place, ValueError(told))) for place, told in rule_problems(config, said)]
        known = columns[: len(specs)]
        hashed = HashedTexts.of(config)
        of_features = {column.name: samples[column.name] for column in known}
        for at, segment in enumerate(config.segments):
            try:
                Rules([segment.when], of_features)
                hashed.check(segment.when, of_features)
            except RuleError as error:
                problems.append(str(problem(("segments", at, "when"), error)))
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        try:
            rules = book.compiled()
        except RuleError as error:
            raise problem(("offers",), error) from error
        offer_rules = book.by_offer(rules)
        masks = [sum(1 << at for at in {rule.at for rule in own}) for own in offer_rules]
        channels = [channel.id for channel in config.channels]
        languages = frozenset(
            [config.language, *(t.language for offer in config.offers for t in offer.treatments if t.language)]
        )
        ids = tuple(offer.id for offer in config.offers)
        treatments = Treatments(config, sorted(languages))
        in_channel = treatments.in_channel.copy()
        for bundle, parts in bundles_of(config):
            # It stands for its parts: it is for whom, and where, each of them is.
            for part in parts:
                masks[bundle] |= masks[part]
                in_channel[:, bundle] &= in_channel[:, part]
        offer_masks = tuple(masks)
        mask_words = words_of(offer_masks, len(rules))
        return cls(
            config=config,
            version=version,
            layout=layout,
            transform=transform,
            columns=tuple(columns),
            rules=rules,
            offer_rules=offer_rules,
            rule_columns=(*columns, *(Column(*own) for own in book.own_columns(rules))),
            surroundings=book.surroundings,
            offer_masks=offer_masks,
            mask_words=mask_words,
            offers=config.offers,
            offer_ids=ids,
            offer_keys=tuple(key_of(offer) for offer in ids),
            kinds=tuple(OFFER_KINDS[offer.kind] for offer in config.offers),
            index_of_key={key_of(offer): at for at, offer in enumerate(ids)},
            channel_index={channel: at for at, channel in enumerate(channels)},
            placement_index={
                (channel.id, placement): at
                for channel in config.channels
                for at, placement in enumerate(("", *channel.placements))
            },
            in_channel=in_channel,
            weighing=Weighing(config, rules, mask_words.shape[1]),
            costs=np.array([offer.contact_cost for offer in config.offers]),
            windows_ms=tuple(offer.answer_window for offer in config.offers),
            treatments=treatments,
            languages=languages,
            fact_columns=fact_columns,
            facts={fact.name: fact for fact in config.context},
            segments=Segments(config.segments, known, of_features),
            rollups=rollups,
        )

    def placement_name(self, channel: int, placement: int) -> str:
        """Placement by the index that a record keeps."""
        return ("", *self.config.channels[channel].placements)[placement]

    @cached_property
    def event_types(self) -> Mapping[str, Mapping[str, Attribute]]:
        """Declared attributes by event type."""
        return {event.type: event.attributes for event in self.config.events}

    def offer_name(self, key: int) -> str:
        """Id of an offer by its key; of one that the configuration no longer has, the key."""
        at = self.index_of_key.get(key)
        return self.offer_ids[at] if at is not None else f"(removed, key {key:08x})"

    @cached_property
    def consents(self) -> Mapping[str, str]:
        """Facts that need consent, and the flags that give it."""
        return {name: fact.consent for name, fact in self.facts.items() if fact.consent is not None}

    @cached_property
    def on_timeline(self) -> Mapping[str, OnTimeline]:
        """How events stand on the timeline, by type, of the types that do."""
        return {event.type: event.timeline for event in self.config.events if event.timeline is not None}

    @cached_property
    def keeper(self) -> Keeper:
        """Keeps the timelines."""
        return Keeper({event.type: event.kept() for event in self.config.events if event.timeline is not None})

    @cached_property
    def layouts(self) -> Mapping[str, Layout]:
        """The layouts by kind: of customers, then of the entities that have features, in order of the columns."""
        return {CUSTOMER: self.layout} | {rollup.kind: rollup.layout for rollup in self.rollups}

    @cached_property
    def feature_count(self) -> int:
        """Columns of the value matrix that are features."""
        return sum(len(layout.names) for layout in self.layouts.values())

    @cached_property
    def bare_layouts(self) -> Mapping[str, Layout]:
        """The same layouts without defaults: they read as missing what `layouts` read as their default."""
        zone = self.config.timezone
        return {
            kind: Layout.compile([replace(spec, default=_NAN) for spec in layout.specs], zone)
            for kind, layout in self.layouts.items()
        }

    @cached_property
    def terms(self) -> Mapping[int, Terms]:
        """What stages and rewards are worth, by offer key, of the offers of which a yes is not simply 1."""
        return terms_of(self.config)

    @cached_property
    def offer_table(self) -> OfferTable:
        """What compiled code knows of offers."""
        silent = np.zeros(len(self.offers), np.bool_)
        silent[list(self.silent.offers)] = True
        return OfferTable(np.array(self.offer_keys, np.int64), np.array(self.windows_ms, np.int64), silent)

    @cached_property
    def plain(self) -> NDArray[np.bool_]:
        """(offers,) whether a yes is 1 and a no is 0: then an estimate is a probability."""
        return np.array([key not in self.terms for key in self.offer_keys])

    @cached_property
    def estimate_bounds(self) -> NDArray[np.float64]:
        """(offers, 2) what an estimate can be at least and at most: 0 and 1, or the range of rewards over the value."""
        terms = (self.terms.get(key) for key in self.offer_keys)
        return np.array([(0.0, 1.0) if one is None else one.bounds for one in terms]).reshape(-1, 2)

    @cached_property
    def identity_strength(self) -> Mapping[str, int]:
        """Rank of each declared kind of identity, 0 the strongest."""
        return {identity.kind: at for at, identity in enumerate(self.config.identities)}

    @cached_property
    def entity_kinds(self) -> Mapping[str, EntityKind]:
        """Declared kinds of entities by name."""
        return {entity.kind: EntityKind(entity.kind, entity.many) for entity in self.config.entities}

    @cached_property
    def entity_attributes(self) -> Mapping[str, EntityKind]:
        """Kinds of entities by the attribute of events that names one."""
        return {e.attribute: self.entity_kinds[e.kind] for e in self.config.entities if e.attribute is not None}

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Names of the columns that the model sees, categories by their value: "job[nurse]", "job[nurse]×age"."""
        texts = {column.name: column.categories for column in self.columns}

        def readable(name: str) -> str:
            source, _, index = name.partition("[")
            named = index and not index.startswith("#")
            return f"{source}[{texts[source][int(index[:-1])]}]" if named else name

        return tuple("×".join(map(readable, name.split("×"))) for name in self.transform.names)

    @cached_property
    def structure(self) -> Structure:
        """What belongs together in the model."""
        return Structure(self.transform.waves, {offer.id: offer.category for offer in self.offers})

    @cached_property
    def arbitration(self) -> Arbitration:
        """The scores of the offers."""
        weighing = self.weighing if self.weighing.effects else None
        return Arbitration(
            self.config,
            self.mask_words,
            self.in_channel,
            self.weighing.gain,
            self.costs,
            weighing,
            self.estimate_bounds,
        )

    @cached_property
    def holds(self) -> Holds:
        """What keeps offers back although their rules hold."""
        placements = Placements(self.config, self.treatments.made)
        holders: list[Holder] = [placements, self.guard, self.questions, self.experiments.control, self.budgets]
        if self.contacts is not None:
            holders.append(self.contacts)
        return Holds(holders, bundles_of(self.config))

    @property
    def gain(self) -> NDArray[np.float64]:
        """(channels, offers) what one sure acceptance adds to the score of whom no rule of a weight or risk holds."""
        gain: NDArray[np.float64] = self.weighing.gain
        return gain

    @cached_property
    def guard(self) -> WelfareGuard:
        """Who is not to be sold to."""
        return WelfareGuard(self.config, self.rules)

    @cached_property
    def questions(self) -> Questions:
        """What may be asked."""
        return Questions(self.config, dict(self.fact_columns))

    @cached_property
    def silent(self) -> Silent:
        """Offers of kind silence."""
        return Silent(self.config)

    @cached_property
    def caps(self) -> Caps | None:
        """What may not stand beside what in one answer."""
        return caps_of(self.config, self.silent.offers)

    @cached_property
    def experiments(self) -> Experiments:
        """Who is in which arm of which experiment."""
        return Experiments(self.config)

    @cached_property
    def neutral(self) -> Neutral:
        """What is expected of the average customer."""
        return Neutral()

    @cached_property
    def sharing(self) -> Sharing:
        """Who is served by which challenger."""
        return Sharing(self.config, self.experiments)

    @cached_property
    def beside(self) -> BesideCurve:
        """How far each offer lies beside the common calibration."""
        return BesideCurve(self.offer_keys)

    @cached_property
    def contacts(self) -> ContactPolicy | None:
        """How often who may be contacted; None: nobody said."""
        if self.config.contact_policy is None:
            return None
        return ContactPolicy(self.config, [offer.category for offer in self.offers], self.windows_ms)

    @cached_property
    def budgets(self) -> Budgets:
        """What the offers use up."""
        return Budgets(self.config)

    @cached_property
    def quoting(self) -> Quoting | None:
        """What goes with offers that are made; None if no offer has parameters or tokens."""
        # Nobody has kept the text of a hash: it cannot be said.
        said = {column.name: _sample(column) for column in self.columns if column.kind != "hashed"}
        quoting = Quoting(self.config, self.treatments, said)
        return quoting if any(quoting.quoted) else None

    @cached_property
    def quoted_columns(self) -> tuple[tuple[str, int], ...]:
        """(name, column of the value matrix) of what quotes are worked out from."""
        if self.quoting is None:
            return ()
        at = {column.name: number for number, column in enumerate(self.columns)}
        return tuple((name, at[name]) for name in self.quoting.variables)

    def variables_of(self, row: Sequence[float]) -> dict[str, Variable]:
        """What quotes are worked out from, of a row of the value matrix."""
        return {name: self.columns[at].variable(row[at]) for name, at in self.quoted_columns}

    @cached_property
    def defaults(self) -> Fallbacks:
        """What to offer whom nothing is known of."""
        return Fallbacks(self.config, self.in_channel)

    @cached_property
    def explorer(self) -> Explorer:
        """How slates are drawn, and who is explored on."""
        return Explorer(self.config, self.rules.mask(self.config.exploration.never))

    @cached_property
    def ladder(self) -> Ladder:
        """What an offer starts from before it has lessons."""
        return Ladder(self.config, self.rules)

    @cached_property
    def rule_batch(self) -> RuleBatch:
        """The rules on the value matrix."""
        return RuleBatch(self.rules, self.rule_columns)

    @cached_property
    def rule_values(self) -> RuleValues:
        """What rules see beside features and facts."""
        return RuleValues([column.name for column in self.rule_columns[len(self.columns) :]], self.surroundings)

    @cached_property
    def fact_defaults(self) -> NDArray[np.float64]:
        """(facts,) what a fact is when the caller does not say."""
        return np.array([column.default for column in self.columns[self.feature_count :]])

    @cached_property
    def unknown(self) -> NDArray[np.int8]:
        """(d,) the vector of a customer of whom nothing is known."""
        layouts = [self.layout, *[rollup.layout for rollup in self.rollups]]
        features = [layout.read([None], np.zeros(1, np.int64))[0] for layout in layouts]
        x: NDArray[np.int8] = self.transform.apply(np.concatenate([*features, self.fact_defaults])[None])[0]
        return x


def _fact_column(fact: Fact) -> Column:
    default = fact.default
    if fact.input is not None and fact.input.kind == "hashed":
        return Column(fact.name, "hashed", (), text_hash(default) if isinstance(default, str) else _NAN)
    if default is None:
        number = _NAN
    elif isinstance(default, str):
        number = float(fact.values.index(default)) if default in fact.values else _NAN
    else:
        number = float(default)
    return Column(fact.name, fact.type, fact.values, number)


def _kind_of(spec: FeatureSpec) -> str:
    return "hashed" if spec.hashed else "text" if spec.categories else "number"


def _sample(column: Column) -> Variable:
    if column.kind == "number":
        return 0.0
    if column.kind == "flag":
        return False
    return column.categories[0] if column.categories else ""
