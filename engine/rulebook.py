"""The rules of a configuration by offer: its own, those of its groups, those for many offers, its triggers.

Each is rewritten to names of columns (engine.rulenames), compiled once however many offers have it, and kept with its
layer and its name: what people read when they ask why not.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from engine.config_schema import Config, Offer, key_of
from engine.groups import Location, lineage, since_feature
from engine.hashed import HashedTexts
from engine.ledgervalues import LEDGER_VALUES
from engine.rulecode import unlisted
from engine.rulenames import (
    LEDGER,
    NEAR,
    OF_OFFER,
    REQUEST,
    REQUEST_VALUES,
    TRIGGER,
    Constant,
    Names,
    as_read,
)
from engine.rules import Programs, RuleError, Rules, Variable
from engine.rules_check import nearest
from engine.rules_schema import LAYERS, GlobalRule, Trigger
from engine.rulevalues import Coordinates, DateTrigger, Surroundings, kind_of

TRIGGERS: Final = "trigger"
"""The layer of what makes an offer come up."""
_DAY_MS: Final = 86_400_000
_OF_OFFER: Final = re.compile(rf"\b{OF_OFFER}[a-z_]+_\d+\b")
Problem = tuple[Location, RuleError]


class OfferRule(NamedTuple):
    """A rule of an offer."""

    layer: str
    """eligibility, applicability, suitability or trigger."""
    name: str
    """For people; "" if it has none."""
    text: str
    """As it stands in the configuration."""
    at: int
    """Place among the distinct rules."""
    consent: str = ""
    """The flag that it cannot hold without, as it asks for facts that need it."""


class _Asked(NamedTuple):
    """A rule before all of them have their places."""

    layer: str
    name: str
    text: str
    expression: str
    """In names of columns."""


class RuleBook:
    """Reads the rules of a configuration; problems are gathered, not raised."""

    def __init__(self, config: Config, columns: Mapping[str, int], samples: Mapping[str, Variable]) -> None:
        """`columns` are the places of features and facts in the value matrix, `samples` values of their types."""
        self._config = config
        self._columns = columns
        kinds = dict.fromkeys([*(place.kind for place in config.places), *(place.id for place in config.places)])
        self._places = {name: at for at, name in enumerate(kinds)}
        self._names = Names(frozenset(samples), self._places, config.location is not None)
        self._samples: dict[str, Variable] = dict(samples)
        self._samples |= {f"{REQUEST}{name}": 0.0 for name in REQUEST_VALUES}
        self._samples |= {f"{LEDGER}{name}": 0.0 for name in LEDGER_VALUES}
        self._samples |= {f"{NEAR}{at}": 0.0 for at in self._places.values()}
        for name, texts in self._texts.items():
            self._samples[name] = texts[0] if texts else ""
        self._hashed = HashedTexts.of(config)
        self._triggers: dict[DateTrigger, int] = {}
        self.problems: list[Problem] = []
        self.written: dict[str, str] = {}
        """From rules that are no offer's to their expressions."""
        self._programs: Programs = {}
        self._checked: dict[str, RuleError | None] = {}
        self._plain: dict[str, str] = {}
        self._consents: dict[str, str] = {}
        self._globals = [(rule, _scope(rule), _around(rule)) for rule in config.rules]
        self._asked = [self._of_offer(at, offer) for at, offer in enumerate(config.offers)]

    def read_other(self, places: Iterable[tuple[Location, str]]) -> None:
        """Read rules that are no offer's, each with its place in the configuration."""
        for place, rule in places:
            expression = self._expression(rule, place, None, 0)
            if expression is not None:
                self.written[rule] = expression

    def compiled(self) -> Rules:
        """All rules, those of offers first. Raises RuleError if they are too many."""
        own = [asked.expression for rules in self._asked for asked in rules]
        return Rules([*own, *self.written.values()], self._samples, written=self.written, programs=self._programs)

    def by_offer(self, rules: Rules) -> tuple[tuple[OfferRule, ...], ...]:
        """The rules of each offer, layer by layer."""
        order = [*LAYERS, TRIGGERS]
        return tuple(
            tuple(
                OfferRule(
                    one.layer,
                    one.name,
                    one.text,
                    rules.at(one.expression),
                    self._consent(one.expression),
                )
                for one in sorted(asked, key=lambda one: order.index(one.layer))
            )
            for asked in self._asked
        )

    @property
    def _texts(self) -> dict[str, tuple[str, ...]]:
        channels = self._config.channels
        return {
            f"{REQUEST}channel": tuple(channel.id for channel in channels),
            f"{REQUEST}placement": tuple(dict.fromkeys(place for c in channels for place in c.placements)),
        }

    def own_columns(self, rules: Rules) -> list[tuple[str, str, tuple[str, ...]]]:
        """(name, kind, categories) of the engine's own columns that the rules name."""
        own = [name for name in rules.variables if name[0].isupper()]
        return [(name, kind_of(name), self._texts.get(name, ())) for name in own]

    def _consent(self, expression: str) -> str:
        if expression not in self._consents:
            self._consents[expression] = self._asked_for(expression)
        return self._consents[expression]

    def _asked_for(self, expression: str) -> str:
        """The flag without which an expression cannot hold; "" if it needs none."""
        facts = {fact.name: fact.consent or "" for fact in self._config.context}
        location = self._config.location
        for name in self._programs[expression].names:
            asked = location.latitude if name.startswith(NEAR) and location else name
            if facts.get(asked):
                return facts[asked]
        return ""

    @cached_property
    def surroundings(self) -> Surroundings:
        """What the engine's own columns are made from; once all rules are read."""
        config = self._config
        near: list[list[Coordinates]] = [[] for _ in self._places]
        for place in config.places:
            for name in {place.id, place.kind}:
                near[self._places[name]].append((place.latitude, place.longitude))
        location = None
        if config.location is not None:
            location = self._columns[config.location.latitude], self._columns[config.location.longitude]
        return Surroundings(
            timezone=config.timezone,
            channels=[channel.id for channel in config.channels],
            placements=[("", *channel.placements) for channel in config.channels],
            triggers=list(self._triggers),
            near=near,
            location=location,
        )

    # --- rules of one offer -----------------------------------------------------------------------------------------

    def _of_offer(self, at: int, offer: Offer) -> list[_Asked]:
        groups = lineage(self._config.groups, offer.group)
        constants = constants_of(offer, groups)
        key = key_of(offer.id)
        found: list[_Asked] = []
        for layer in LAYERS:
            for i, rule in enumerate(getattr(offer, layer)):
                expression = self._expression(rule.when, ("offers", at, layer, i), constants, key)
                if expression is not None:
                    found.append(_Asked(layer, rule.name, rule.when, expression))
        for place, (rule, concerns, around) in enumerate(self._globals):
            if concerns(offer, groups):
                expression = self._expression(rule.when, ("rules", place, "when"), constants, key, around)
                if expression is not None:
                    found.append(_Asked(rule.layer, rule.name, rule.when, expression))
        if offer.triggers:
            found.append(self._of_triggers(at, offer.triggers))
        return found

    def _of_triggers(self, at: int, triggers: Sequence[Trigger]) -> _Asked:
        parts = []
        for trigger in triggers:
            if trigger.date is not None:
                days = trigger.before // _DAY_MS, trigger.after // _DAY_MS
                one = DateTrigger(self._columns[trigger.date], trigger.written, trigger.every, *days)
                number = self._triggers.setdefault(one, len(self._triggers))
                self._samples[f"{TRIGGER}{number}"] = 0.0
                parts.append(f"{TRIGGER}{number} == 1.0")
            else:
                since = since_feature(self._config.features, trigger.event or "")
                span = f">= {trigger.dormant / 1e3!r}" if trigger.dormant else f"<= {(trigger.within or 0) / 1e3!r}"
                # A customer of whom there was no such event has no number here, which is equal to nothing.
                parts.append(f"({since} == {since} && {since} {span})")
        expression = " || ".join(parts)
        self._check(expression, ("offers", at, "triggers"))
        told = " or ".join(trigger.name or told_of(trigger) for trigger in triggers)
        return _Asked(TRIGGERS, told if any(t.name for t in triggers) else "", told, expression)

    def _expression(
        self, rule: str, place: Location, constants: Mapping[str, Constant] | None, key: int, around: str = ""
    ) -> str | None:
        """A rule in names of columns; None if it is none, which is kept as a problem."""
        try:
            if "offer" in rule or constants is None:
                plain = self._names.rewritten(rule, constants, key)
            else:
                plain = self._plain[rule] = self._plain.get(rule) or self._names.rewritten(rule, constants, key)
        except RuleError as error:
            self.problems.append((place, error))
            return None
        expression = f"{around}({plain})" if around else plain
        self._samples |= {name: name.startswith(f"{OF_OFFER}open_") or 0.0 for name in _OF_OFFER.findall(expression)}
        return expression if self._check(expression, place) else None

    def _check(self, expression: str, place: Location) -> bool:
        if expression not in self._checked:
            try:
                Rules([expression], self._samples, programs=self._programs)
                self._hashed.check(expression, self._samples)
                self._check_texts(expression)
                self._checked[expression] = None
            except RuleError as error:
                self._checked[expression] = RuleError(as_read(str(error)))
        found = self._checked[expression]
        if found is not None:
            self.problems.append((place, found))
        return found is None

    def _check_texts(self, expression: str) -> None:
        """Raise RuleError if a text with declared values is compared with another one: nobody ever has that."""
        found = unlisted(expression, self._declared)
        if found is not None:
            name, text = found
            there = self._declared[name]
            raise RuleError(f"{name} is never {text!r}{nearest(text, there)}; there are {', '.join(there)}")

    @cached_property
    def _declared(self) -> dict[str, tuple[str, ...]]:
        """Values of the texts that rules see, where they are declared."""
        texts = {fact.name: fact.values for fact in self._config.context}
        specs = [self._config.feature_spec(feature) for feature in self._config.all_features]
        texts |= {spec.name: tuple(spec.categories) for spec in specs}
        return {name: values for name, values in (texts | self._texts).items() if values}


def _scope(rule: GlobalRule) -> Callable[[Offer, Sequence[str]], bool]:
    """Which offers, of which groups, a rule for many is about."""
    offers, kinds, categories = frozenset(rule.offers), frozenset(rule.kinds), frozenset(rule.categories)
    groups = frozenset(rule.groups)

    def concerns(offer: Offer, own: Sequence[str]) -> bool:
        return (
            (not offers or offer.id in offers)
            and (not kinds or offer.kind in kinds)
            and (not categories or offer.category in categories)
            and (not groups or not groups.isdisjoint(own))
        )

    return concerns


def _around(rule: GlobalRule) -> str:
    """What stands before a rule that counts in some channels or placements alone."""
    parts = [
        f"{REQUEST}{name} in [{', '.join(repr(one) for one in chosen)}]"
        for name, chosen in (("channel", rule.channels), ("placement", rule.placements))
        if chosen
    ]
    return f"!({' && '.join(parts)}) || " if parts else ""


def constants_of(offer: Offer, groups: Sequence[str]) -> dict[str, Constant]:
    """What rules see of an offer in the catalogue: all its numbers, texts and flags, and its groups.

    >>> offer = Offer(id="card", value=40, treatments=[{"text": "x"}])
    >>> found = constants_of(offer, ["cards"])
    >>> found["value"], found["kind"], found["group"], found["groups"]
    (40.0, 'sale', 'cards', ['cards'])
    """
    fields: dict[str, Any] = {name: getattr(offer, name) for name in type(offer).model_fields}
    plain = {name: value for name, value in fields.items() if isinstance(value, float | int | str)}
    return {**plain, "group": groups[0] if groups else "", "groups": list(groups)}


def told_of(trigger: Trigger) -> str:
    """A trigger that has no name, in words.

    >>> told_of(Trigger(date="birthday", before="14d", after="3d", every="year"))
    'birthday (every year) from 14 days before to 3 days after'
    >>> told_of(Trigger(event="purchase", within="7d")), told_of(Trigger(event="purchase", dormant="90d"))
    ('purchase within 7 days', 'no purchase for 90 days')
    """
    if trigger.date is not None:
        every = "" if trigger.every == "once" else f" (every {trigger.every})"
        before, after = trigger.before // _DAY_MS, trigger.after // _DAY_MS
        return f"{trigger.date}{every} from {before} days before to {after} days after"
    days = f"{(trigger.within or trigger.dormant or 0) / _DAY_MS:g} days"
    return f"{trigger.event} within {days}" if trigger.within else f"no {trigger.event} for {days}"
