"""The form of an offer's parameters: what an amount, a rate or a way of paying is, and which rule says so."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine import limits
from engine.config_base import Finite, Part, Rule

Scalar = Finite | Annotated[str, Field(min_length=1)]


class ParameterRule(Part):
    """A value for those for whom a rule holds: a constant, or an expression."""

    when: Rule
    value: Scalar | None = None
    expression: Rule | None = None


class Parameter(Part):
    """A typed value that goes with an offer: the first rule that holds gives it, else `value` or `expression`."""

    type: Literal["number", "text"]
    unit: str = ""
    range: tuple[Finite, Finite] | None = None
    step: Annotated[Finite, Field(gt=0)] | None = None
    """Numbers are rounded to whole multiples of it, within the range."""
    rules: tuple[ParameterRule, ...] = Field(default=(), max_length=limits.PARAMETER_RULES_MAX)
    value: Scalar | None = None
    expression: Rule | None = None
    default: Scalar | None = None
    """Where no rule holds, or an expression gives nothing."""

    @model_validator(mode="after")
    def _fits(self) -> "Parameter":
        if not self.rules and self.value is None and self.expression is None:
            raise ValueError("expected rules, value or expression: nothing says what it is")
        given: list[tuple[str, Scalar | None, str | None]] = [("value or expression", self.value, self.expression)]
        given += [(f"rules[{at}]", rule.value, rule.expression) for at, rule in enumerate(self.rules)]
        for place, value, expression in given:
            if value is not None and expression is not None:
                raise ValueError(f"{place}: expected value or expression, one of them")
            if place != "value or expression" and value is None and expression is None:
                raise ValueError(f"{place}: expected value or expression")
        if self.value is not None and self.default is not None:
            raise ValueError("default: value is always there, expected one of them")
        if self.type == "text" and (self.range is not None or self.step is not None):
            raise ValueError("range and step: only a number has them")
        if self.range is not None and not self.range[0] <= self.range[1]:
            raise ValueError(f"range {list(self.range)}: expected [low, high] with low ≤ high")
        for constant in [value for _, value, _ in given] + [self.default]:
            self._check(constant)
        return self

    def _check(self, constant: Scalar | None) -> None:
        if constant is None:
            return
        if isinstance(constant, str) != (self.type == "text"):
            raise ValueError(f"expected a {self.type}, got {constant!r}; a formula is an expression: …")
        if isinstance(constant, str):
            if len(constant.encode()) > limits.PARAMETER_TEXT_BYTES_MAX:
                raise ValueError(f"a text of more than {limits.PARAMETER_TEXT_BYTES_MAX} bytes")
        elif self.range is not None and not self.range[0] <= constant <= self.range[1]:
            raise ValueError(f"{constant:g} is outside the range {list(self.range)}")

    @property
    def sure(self) -> bool:
        """Whether it always has a value."""
        return self.value is not None or self.default is not None
