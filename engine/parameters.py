"""What goes with an offer that is made: its parameters by rule, the price held, what its treatments tell. Pure.

A parameter is the value of the first rule that holds, else its `value` or `expression`, else its default; numbers are
rounded to `step` and clipped to `range`. Only offers in an answer are worked out. An offer that is still open and
whose price is held keeps what it was given, whatever the rules say meanwhile.

All of it is a Quote. The decision record keeps the quotes (engine.basis), so that an answer can be given again.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import cel
import orjson

from engine.config_schema import Config, Offer
from engine.limits import PARAMETER_TEXT_BYTES_MAX, QUOTE_PART_BYTES_MAX, RULE_BYTES_MAX, SAID_TEXT_BYTES_MAX
from engine.parameters_schema import Parameter
from engine.rules import RuleError, Rules, Variable
from engine.tokens import Scalar, Values, printable
from engine.treatments import MOMENTS, Location, Treatments
from features import ExpressionError, compile_cel, first_line

_NUMBERS_TRIED: Final = (math.nan, 0.0, 1.0, -1.0)
_LONGEST: Final = -1.2345678901234567e-300


class Quote(NamedTuple):
    """What goes with one offer of one answer."""

    parameters: Mapping[str, Scalar] = {}
    held_until_ms: int = 0
    """Until then the parameters are promised; 0: they are not."""
    began: str = ""
    """The decision whose parameters these are; "": the one that they are kept with."""
    said: Mapping[str, Scalar] = {}
    """Features that the treatments of the offer tell, as they were."""
    expires_ms: int = 0
    """Of an offer that was resumed: when it expires."""

    def held_at(self, now_ms: int) -> bool:
        """Whether the parameters are promised."""
        return now_ms < self.held_until_ms


NO_QUOTE: Final = Quote()


def values_of(quote: Quote, context: bytes, expires_ms: int) -> Values:
    """What tokens can tell of an offer; `context` are the facts of the conversation as JSON."""
    facts = orjson.loads(context) if context else {}
    moments_ms = {name: at for name, at in zip(MOMENTS, (expires_ms, quote.held_until_ms), strict=True) if at}
    return Values(quote.parameters, quote.said, facts, moments_ms)


def pack(quotes: Mapping[str, Quote]) -> bytes:
    """JSON of quotes by offer id, for engine.basis.

    >>> unpack(pack({"loan": Quote({"amount": 5000.0}, 1)}))
    {'loan': Quote(parameters={'amount': 5000.0}, held_until_ms=1, began='', said={}, expires_ms=0)}
    """
    return orjson.dumps(
        {offer: {name: value for name, value in quote._asdict().items() if value} for offer, quote in quotes.items()}
    )


def unpack(data: bytes) -> dict[str, Quote]:
    """Read what `pack` wrote; what is no quote is left out: a record is explained without it."""
    try:
        found = orjson.loads(data) if data else {}
        return {offer: Quote(**quote) for offer, quote in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


class Quoting:
    """Works out quotes, for one configuration."""

    def __init__(self, config: Config, treatments: Treatments, samples: Mapping[str, Variable]) -> None:
        """Compile. `samples` has a value of the right type for each variable of rules."""
        self._ids = [offer.id for offer in config.offers]
        self._held_for_ms = [offer.price_held_for or 0 for offer in config.offers]
        self._said = treatments.features
        self._parameters = [
            {name: _Worked(parameter, samples) for name, parameter in offer.parameters.items()}
            for offer in config.offers
        ]
        self.quoted: Final = tuple(
            bool(offer.parameters) or personal
            for offer, personal in zip(config.offers, treatments.personal, strict=True)
        )
        """By offer: whether it has a quote."""
        self.held: Final = frozenset(at for at, offer in enumerate(config.offers) if offer.price_held_for)
        """Offers whose price is held."""
        self.with_parameters: Final = frozenset(at for at, offer in enumerate(config.offers) if offer.parameters)
        used = {name for worked in self._parameters for one in worked.values() for name in one.variables}
        self.variables: Final = tuple(sorted(used | {name for names in self._said for name in names}))
        """Variables that quotes are worked out from."""

    def quote(
        self, offer: int, variables: Mapping[str, Variable], time_ms: int, held: Quote | None = None
    ) -> Quote:
        """The quote of an offer that is made now; `held` is that of an open instance whose price is held."""
        said = {name: value for name in self._said[offer] if (value := _known(variables[name])) is not None}
        if held is not None and held.held_at(time_ms):
            return Quote(held.parameters, held.held_until_ms, held.began, said)
        parameters: dict[str, Scalar] = {}
        for name, worked in self._parameters[offer].items():
            value = worked.value(variables)
            if value is not None:
                parameters[name] = value
        held_for_ms = self._held_for_ms[offer]
        return Quote(parameters, time_ms + held_for_ms if held_for_ms else 0, "", said)

    def quotes(
        self, offers: Sequence[int], variables: Mapping[str, Variable], time_ms: int, held: Mapping[int, Quote]
    ) -> list[Quote | None]:
        """The quotes of the offers of one answer; None of those that have none."""
        quoted = self.quoted
        return [self.quote(at, variables, time_ms, held.get(at)) if quoted[at] else None for at in offers]

    def packed(self, offers: Sequence[int], quotes: Sequence[Quote | None]) -> bytes:
        """What the record keeps of them."""
        return pack({self._ids[at]: quote for at, quote in zip(offers, quotes, strict=True) if quote is not None})


def _known(value: Variable) -> Scalar | None:
    if isinstance(value, bool) or value == "" or value != value:
        return None
    return value


class _Worked:
    """One parameter, compiled."""

    def __init__(self, parameter: Parameter, samples: Mapping[str, Variable]) -> None:
        self._parameter = parameter
        self._rules = Rules([rule.when for rule in parameter.rules], samples)
        self._masks = [self._rules.mask([rule.when]) for rule in parameter.rules]
        given = [(rule.value, rule.expression) for rule in parameter.rules]
        given.append((parameter.value, parameter.expression))
        self._values = [value if expression is None else compile_cel(expression) for value, expression in given]
        names = set(self._rules.variables)
        for value in self._values:
            if isinstance(value, cel.Program):
                names.update(value.variables())
        self.variables: Final = tuple(sorted(names))

    def value(self, variables: Mapping[str, Variable]) -> Scalar | None:
        """The value; None if there is none."""
        held = int.from_bytes(self._rules.evaluate(variables).held, "little") if self._masks else 0
        at = next((at for at, mask in enumerate(self._masks) if held & mask), len(self._masks))
        found: object = self._values[at]
        if isinstance(found, cel.Program):
            try:
                found = found.execute({name: variables[name] for name in found.variables()})
            except Exception:
                # CEL's evaluation errors share no base class. Whatever it was: there is no value.
                found = None
        value = self._fitted(found)
        return self._fitted(self._parameter.default) if value is None else value

    def _fitted(self, found: object) -> Scalar | None:
        """The value as it was declared, clipped and rounded; None if it is none."""
        parameter = self._parameter
        if parameter.type == "text":
            return printable(found, PARAMETER_TEXT_BYTES_MAX) or None if isinstance(found, str) else None
        if isinstance(found, bool) or not isinstance(found, float | int):
            return None
        try:
            value = float(found)
        except OverflowError:
            return None
        if not math.isfinite(value):
            return None
        if parameter.step is not None:
            steps = value / parameter.step
            value = round(steps) * parameter.step if math.isfinite(steps) else value
        if parameter.range is not None:
            value = min(max(value, parameter.range[0]), parameter.range[1])
        return value


def rule_problems(config: Config, samples: Mapping[str, Variable]) -> list[tuple[Location, str]]:
    """Wrong rules and expressions of parameters, as (place, what was expected)."""
    found: list[tuple[Location, str]] = []
    for at, offer in enumerate(config.offers):
        for name, parameter in offer.parameters.items():
            place: Location = ("offers", at, "parameters", name)
            given: list[tuple[Location, str | None]] = [((*place, "expression"), parameter.expression)]
            for i, rule in enumerate(parameter.rules):
                given.append(((*place, "rules", i, "expression"), rule.expression))
                try:
                    Rules([rule.when], samples)
                except RuleError as error:
                    found.append(((*place, "rules", i, "when"), str(error)))
            found += [
                (where, problem)
                for where, expression in given
                if expression is not None and (problem := _misgives(expression, str(parameter.type), samples))
            ]
    return found


def _misgives(expression: str, kind: str, samples: Mapping[str, Variable]) -> str:
    """Why an expression cannot give a value of this type; "" if it can."""
    try:
        program = compile_cel(expression, RULE_BYTES_MAX, "an expression")
    except ExpressionError as error:
        return str(error)
    unknown = [name for name in program.variables() if name not in samples]
    if unknown:
        return f"no feature or fact is called {unknown[0]!r}; there are {', '.join(sorted(samples)) or 'none'}"
    failed = ""
    answers = 0
    for number in _NUMBERS_TRIED:
        given = {name: number if isinstance(samples[name], float) else samples[name] for name in program.variables()}
        try:
            answer = program.execute(given)
        except Exception as error:
            failed = failed or first_line(error)
            continue
        answers += 1
        text = isinstance(answer, str)
        if text != (kind == "text") or (not text and (isinstance(answer, bool) or not isinstance(answer, float | int))):
            return f"expected an expression that gives a {kind}, this one gives {answer!r}"
    return "" if answers else f"cannot be evaluated: {failed}"


def problems_of(config: Config) -> list[tuple[Location, str]]:
    """What is wrong with parameters beside their rules, as (place, what was expected)."""
    found: list[tuple[Location, str]] = []
    taken = {feature.name: "feature" for feature in config.all_features} | {f.name: "fact" for f in config.context}
    try:
        said = Treatments(config, sorted({config.language, *_languages(config)})).features
    except ValueError:
        said = tuple(() for _ in config.offers)  # told by engine.treatments
    widths = _widths(config)
    for at, offer in enumerate(config.offers):
        place: Location = ("offers", at)
        found += [
            ((*place, "parameters", name), f"the name {name!r} is already that of a {taken[name]}")
            for name in offer.parameters
            if name in taken
        ]
        if offer.price_held_for is not None:
            if not offer.parameters:
                found.append(((*place, "price_held_for"), "the offer has no parameters that could be held"))
            if offer.price_held_for > offer.answer_window:
                found.append(
                    (
                        (*place, "price_held_for"),
                        f"{offer.price_held_for} ms is longer than the {offer.answer_window} ms in which the customer "
                        "may answer: expected no more, or a longer window",
                    )
                )
        worst = _parameter_bytes(offer)
        if worst > QUOTE_PART_BYTES_MAX:
            what = f"they may take {worst} bytes in a record, at most {QUOTE_PART_BYTES_MAX} are allowed"
            found.append(((*place, "parameters"), what))
        worst = sum(len(name) + 4 + widths.get(name, len(repr(_LONGEST))) for name in said[at])
        if worst > QUOTE_PART_BYTES_MAX:
            what = f"features in its texts may take {worst} bytes in a record, at most {QUOTE_PART_BYTES_MAX}"
            found.append(((*place, "treatments"), f"{what} are allowed"))
    return found


def _languages(config: Config) -> list[str]:
    return [t.language for offer in config.offers for t in offer.treatments if t.language]


def _widths(config: Config) -> dict[str, int]:
    """Bytes of the longest value of features that are texts, as JSON."""
    found = {}
    for feature in config.all_features:
        categories = config.feature_spec(feature).categories
        if categories:
            found[feature.name] = max(len(orjson.dumps(category)) for category in categories)
    return found


def _parameter_bytes(offer: Offer) -> int:
    """Bytes that the parameters of an offer take at most, as JSON."""
    total = 0
    for name, parameter in offer.parameters.items():
        if parameter.type == "number":
            width = len(repr(_LONGEST))
        elif parameter.expression is not None or any(rule.expression is not None for rule in parameter.rules):
            width = 2 * PARAMETER_TEXT_BYTES_MAX + 2  # quotes and backslashes take two bytes each
        else:
            constants = [parameter.value, parameter.default, *(rule.value for rule in parameter.rules)]
            width = max(len(orjson.dumps(text)) for text in constants if text is not None)
        total += len(name) + 4 + width
    return total


assert SAID_TEXT_BYTES_MAX >= PARAMETER_TEXT_BYTES_MAX, "a parameter is said whole"
