"""The names that rules see beside features and facts, and rules rewritten to what the compilers understand. Pure.

    channel placement hour weekday month day today      the request, in local time; today: days since 1970-01-01
    ledger.open_offers ledger.contacts_7d …             what there was with the customer (engine.ledgervalues)
    offer.value offer.category offer.groups …           what the catalogue says of the offer: constants
    offer.open offer.days_since_declined …              where this offer stands with the customer
    near('centre', 2.0)                                 within 2 km of a place, or of one of a kind of places

A rule is rewritten once, when a configuration is read: constants take the place of their names, so that a rule about
`offer.value` is as many rules as there are values, and what is left are plain names of columns. Those in capitals are
the engine's own: no feature or fact can be called so. A feature or a fact that is called `month` is that, and not the
month of the request; `request.month` is always the latter.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.ledgervalues import LEDGER_VALUES, OFFER_VALUES
from engine.rules import RuleError
from engine.rules_check import nearest
from features import WORDLESS

REQUEST: Final = "REQUEST_"
LEDGER: Final = "LEDGER_"
OF_OFFER: Final = "OFFER_"
NEAR: Final = "NEAR_"
TRIGGER: Final = "TRIGGER_"
REQUEST_VALUES: Final = ("channel", "placement", "hour", "weekday", "month", "day", "today")
_SHOWN: Final = {"request": "hour", "ledger": "contacts_7d", "offer": "value"}
"""Words before a dot, each with an example of what stands behind it."""

Constant = float | str | bool | Sequence[str]
_WORD: Final = re.compile(
    rf"(?P<skip>{WORDLESS.pattern})"
    r"|(?P<member>\.\s*[A-Za-z_]\w*)"
    r"|\bnear\s*\((?:\s*(?P<place>'[^'\\\n]*'|\"[^\"\\\n]*\")\s*,\s*(?P<km>\d+(?:\.\d+)?)\s*\))?"
    r"|\b(?P<first>[A-Za-z_]\w*)\b(?:\s*\.\s*(?P<second>[A-Za-z_]\w*)\b(?!\s*\())?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Names:
    """What there is to be named in one configuration."""

    declared: frozenset[str]
    """Features and facts."""
    places: Mapping[str, int] = field(default_factory=dict)
    """Number of each place and kind of places."""
    located: bool = False
    """Whether it is said which facts are the customer's location."""

    def rewritten(
        self, rule: str, constants: Mapping[str, Constant] | None = None, key: int = 0
    ) -> str:
        """A rule in names of columns; `constants` and `key` are those of the offer that it is about, None: of none.

        Raises RuleError for a name that does not exist.

        >>> Names(frozenset(["age"])).rewritten("age > offer.value && hour < 12", {"value": 40.0})
        'age > 40.0 && REQUEST_hour < 12'
        """

        def word(found: re.Match[str]) -> str:
            if found["skip"] is not None or found["member"] is not None:
                return found[0]
            first, second = found["first"], found["second"]
            if first is None:
                return self._near(found["place"], found["km"])
            if first in self.declared:
                return found[0]
            if second is None:
                return f"{REQUEST}{first}" if first in REQUEST_VALUES else found[0]
            if first == "request":
                return REQUEST + _one_of(second, REQUEST_VALUES, "request")
            if first == "ledger":
                return LEDGER + _one_of(second, LEDGER_VALUES, "ledger")
            if first == "offer":
                return _of_offer(second, constants, key)
            return f"{REQUEST}{found[0]}" if first in REQUEST_VALUES else found[0]

        return _WORD.sub(word, rule)

    def _near(self, place: str | None, km: str | None) -> str:
        if place is None or km is None:
            raise RuleError("near: expected near('place or kind of places', kilometres), both written out")
        if not self.located:
            raise RuleError("near: the configuration does not say what the customer's location is; expected location")
        name = place[1:-1]
        if name not in self.places:
            raise RuleError(f"no place or kind of places is called {name!r}{nearest(name, self.places)}")
        return f"({NEAR}{self.places[name]} <= {float(km)!r})"


def shadowed_told(declared: Iterable[str]) -> list[str]:
    """What features and facts take from rules by their names, a sentence each.

    >>> shadowed_told(["age", "month", "offer"])
    ["rules mean the declared 'month' by month; that of the request is request.month", \
"rules mean the declared 'offer' by offer; they do not see offer.value and the like"]
    """
    told = []
    for name in declared:
        if name in REQUEST_VALUES:
            instead = f"that of the request is request.{name}"
        elif name in _SHOWN:
            instead = f"they do not see {name}.{_SHOWN[name]} and the like"
        else:
            continue
        told.append(f"rules mean the declared {name!r} by {name}; {instead}")
    return told


def as_read(text: str) -> str:
    """An engine's own name as a rule has it.

    >>> as_read("LEDGER_contacts_7d"), as_read("REQUEST_hour"), as_read("age")
    ('ledger.contacts_7d', 'hour', 'age')
    """
    return re.sub(rf"\b(?:{REQUEST}|({LEDGER}))(?=[a-z])", lambda found: "ledger." if found[1] else "", text)


def literal(value: Constant) -> str | None:
    """A constant as CEL writes it; None of what cannot be written plainly.

    >>> literal(-5), literal("sale"), literal(True), literal(["a", "b"]), literal("it's")
    ('(-5.0)', "'sale'", 'true', "['a', 'b']", None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(float(value)) if value >= 0 else f"({float(value)!r})"
    if isinstance(value, str):
        return None if set(value) & set("'\\\n\r") else f"'{value}'"
    parts = [literal(part) for part in value]
    return None if None in parts else f"[{', '.join(part for part in parts if part is not None)}]"


def _of_offer(name: str, constants: Mapping[str, Constant] | None, key: int) -> str:
    if constants is None:
        raise RuleError(f"offer.{name}: only rules of offers are about one")
    if name in OFFER_VALUES:
        return f"{OF_OFFER}{name}_{key}"
    text = literal(constants[name]) if name in constants else None
    if text is None:
        _one_of(name, (*constants, *OFFER_VALUES), "offer")
        raise RuleError(f"offer.{name}: cannot be written in a rule")
    return text


def _one_of(name: str, there: Iterable[str], what: str) -> str:
    there = list(there)
    if name not in there:
        raise RuleError(f"{what}.{name}: there is none{nearest(name, there)}; there are {', '.join(sorted(there))}")
    return name
