"""Texts of an open vocabulary, of which only the hash is kept: what rules can ask, what people are told. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Self

from engine.config_schema import Config, Input
from engine.rulecode import compile_code
from engine.rules import RuleError, Variable
from features import compile_cel, shown_hash, text_hash

_ASKED: Final = "nothing but its hash is kept: a plain rule can compare it with written texts, by ==, != or in"


class _Known(NamedTuple):
    """A name of which nothing but the kind is known."""

    kind: str
    categories: Sequence[str] = ()


class HashedTexts:
    """The hashed features and facts of a configuration."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Those of a configuration."""
        return cls(config.hashed)

    def check(self, expression: str, samples: Mapping[str, Variable]) -> None:
        """Raise RuleError if a rule asks for more of them than a hash can tell; `samples` has a value of each name."""
        if not self._names:
            return
        asked = sorted(self._names.intersection(compile_cel(expression).variables()))
        if not asked:
            return
        columns = {name: (0, _Known(self._kind(name, sample))) for name, sample in samples.items()}
        if compile_code(expression, columns) is None:
            raise RuleError(f"{asked[0]!r} is a hashed text, and {_ASKED}")

    def _kind(self, name: str, sample: Variable) -> str:
        if name in self._names:
            return "hashed"
        return "flag" if isinstance(sample, bool) else "number" if isinstance(sample, float) else "text"


class Naming:
    """What a hashed input is called for people: the text if anybody knows it, else the hash."""

    def __init__(self, given: Input) -> None:
        assert given.columns is not None
        self.columns: Final = given.columns
        self._texts = {text_hash(name): name for name in given.names}

    def column(self, value: float) -> int:
        """The column that a hash falls into, from 0 on."""
        return int(value) % self.columns

    def text(self, value: float, said: str | None) -> str:
        """The text of a hash; `said` is what a caller gave, if it was one."""
        if said and text_hash(said) == value:
            return said
        return self._texts.get(value) or shown_hash(value)
