"""Rules as expressions over a row of plain numbers: the part of CEL that most rules use.

Evaluating 40 rules with the CEL library costs 30 µs a decision, most of it for handing over the variables. What this
small compiler understands runs as a program instead (engine.ruleprogram) at a hundredth of that in a full batch, and
everything else goes to the library. It understands comparisons, `in` a list of texts, && || ! ?:,
arithmetic on doubles, distance_km, and what a text column starts with, ends with, contains or matches: that is found
for each of its values beforehand. A property test holds it against the library.

A comparison with a missing number is neither true nor false, as in CEL, where it is an error that && and || absorb if
the other side decides. So is a comparison of what was divided by zero. So every expression is compiled twice: to where
it surely holds, and to where it surely does not. Rows without a missing number need the first only, unless there is
arithmetic.

    or      = and { "||" and }                 compared = sum [ op sum | "in" "[" text { "," text } "]" ]
    and     = compared { "&&" compared }       sum      = product { ("+" | "-") product }
    rule    = or [ "?" rule ":" rule ]         product  = unary { ("*" | "/") unary }

Both are bounded: a `?:` writes its condition twice, so nested ones would double and double; and Python reads at most
200 brackets within brackets, of which a long || needs one a part. What is larger goes to the library.

The code is put together from numbers, column places and operators of our own; no text of a rule gets into it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

import cel

from features import text_hash


class Described(Protocol):
    """What the compiler needs to know of a column."""

    @property
    def kind(self) -> str:
        """number, text, hashed (a text, the column holds its hash) or flag."""
        ...

    @property
    def categories(self) -> Sequence[str]:
        """Values of a text; the column holds their index, NaN for none."""
        ...


@dataclass(frozen=True, slots=True)
class RuleCode:
    """A rule as two Python expressions over `v`, the row."""

    holds: str
    fails: str
    """Where it surely does not hold; where neither is true it cannot be evaluated."""
    calculates: bool
    """Whether it does arithmetic, which can give NaN where nothing was missing."""


@dataclass(frozen=True, slots=True)
class _Typed:
    """A compiled expression: "double", "int" (literals only), "text" or "flag"; a flag has `no` too."""

    kind: str
    code: str
    no: str = ""
    text: str | None = None
    """The literal, where it is one."""
    categories: Sequence[str] = ()
    hashed: bool = False
    divided: tuple[str, ...] = ()
    """Conditions, inner ones first, without which a number was divided by zero; a flag has them in its code."""


class _Beyond(Exception):
    """The expression uses more of CEL than is understood here."""


class _Mismatch(_Beyond):
    """The expression combines what cannot be combined, whatever the values."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A name of which nothing but the kind is known."""

    kind: str
    categories: Sequence[str] = ()


_TOKEN: Final = re.compile(
    r"\s*(?:(?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)|(?P<int>\d+)(?![\w.])"
    r"|(?P<text>'[^'\\\n]*'|\"[^\"\\\n]*\")"
    r"|(?P<escaped>[rR]'[^'\n]*'|[rR]\"[^\"\n]*\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\")"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<op>&&|\|\||[<>=!]=|[<>!?:+\-*/(),\[\].]))"
)
_OPPOSITE: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
"""Of a missing number neither a comparison nor its opposite is true, but for == and !=, which have an answer."""
_OF_TEXTS: Final = ("startsWith", "endsWith", "contains", "matches")
_EXACT_INT_MAX: Final = 2**53
_CODE_CHARACTERS_MAX: Final = 64 * 1024
_CODE_BRACKETS_MAX: Final = 100
"""Within each other."""


def compile_code(expression: str, columns: Mapping[str, tuple[int, Described]]) -> RuleCode | None:
    """The rule as code; None if the expression needs the library. `columns` says where each name lies and what it is.

    >>> from engine.catalogue import Column
    >>> columns = {"age": (0, Column("age", "number")), "job": (1, Column("job", "text", ("clerk", "nurse")))}
    >>> compile_code("age >= 18.0 && job != 'nurse'", columns).holds
    '((v[0]>=18.0) and (v[1]!=1.0))'
    """
    try:
        parser = _Parser(_tokens(expression), columns)
        compiled = parser.rule()
        if parser.peek() != ("end", "") or compiled.kind != "flag":
            return None
        if max(_brackets(compiled.code), _brackets(compiled.no)) > _CODE_BRACKETS_MAX:
            return None
    except _Beyond:
        return None
    return RuleCode(compiled.code, compiled.no, parser.calculates)


def mismatched(expression: str, kinds: Mapping[str, str]) -> bool:
    """Whether a rule surely combines values of different types, as far as it is understood here.

    CEL finds that out only where it comes by: of `vip && job > 1.0` only for some customers.

    >>> kinds = {"age": "number", "job": "text", "vip": "flag"}
    >>> [mismatched(rule, kinds) for rule in ("vip && job > 1.0", "age + 1 > 2.0", "vip || age", "!vip && age > 1")]
    [True, True, True, False]
    """
    try:
        parser = _Parser(_tokens(expression), {name: (0, _Known(kind)) for name, kind in kinds.items()})
        parser.rule()
    except _Mismatch:
        return True
    except _Beyond:
        pass
    return False


def unlisted(expression: str, texts: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """(name, text) where a rule plainly compares one of `texts` with none of its values; None if it does not.

    >>> [unlisted(rule, {"job": ("clerk", "nurse")}) for rule in ("job == 'nurse'", "job in ['clerk', 'nurze']")]
    [None, ('job', 'nurze')]
    """
    try:
        tokens = [("op", "(")] * 2 + _tokens(expression) + [("end", "")] * 2
    except _Beyond:
        return None
    for at, (kind, name) in enumerate(tokens):
        if kind != "name" or name not in texts:
            continue
        compared: list[tuple[str, str]] = []
        if tokens[at + 1][1] in ("==", "!=") and tokens[at + 3][1] not in ("+", "."):
            compared.append(tokens[at + 2])
        if tokens[at - 1][1] in ("==", "!=") and tokens[at - 3][1] != "+" and tokens[at + 1][1] not in ("+", "."):
            compared.append(tokens[at - 2])
        if tokens[at + 1] == ("name", "in") and tokens[at + 2][1] == "[":
            compared += tokens[at + 3 : tokens.index(("op", "]"), at)]
        for sort, literal in compared:
            if sort == "text" and literal[1:-1] not in ("", *texts[name]):
                return name, literal[1:-1]
    return None


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _Beyond
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return [*found, ("end", "")]


class _Parser:
    """Recursive descent; each method returns the compiled expression it has read."""

    def __init__(self, tokens: list[tuple[str, str]], columns: Mapping[str, tuple[int, Described]]) -> None:
        self._tokens = tokens
        self._columns = columns
        self._at = 0
        self.calculates = False

    def peek(self) -> tuple[str, str]:
        """The next token."""
        return self._tokens[self._at]

    def rule(self) -> _Typed:
        """A whole expression."""
        condition = self._or()
        if not self._take("?"):
            return condition
        yes = self.rule()
        self._expect(":")
        no = self.rule()
        if condition.kind != "flag":
            raise _Mismatch
        if not yes.kind == no.kind == "flag":
            raise _Beyond
        # Written with and, or alone: where the condition cannot be evaluated, neither side is taken.
        chosen = _Typed(
            "flag",
            f"({condition.code} and {yes.code} or {condition.no} and {no.code})",
            f"({condition.code} and {yes.no} or {condition.no} and {no.no})",
        )
        if len(chosen.code) + len(chosen.no) > _CODE_CHARACTERS_MAX:
            raise _Beyond
        return chosen

    def _or(self) -> _Typed:
        left = self._and()
        while self._take("||"):
            left = _either(left, self._and())
        return left

    def _and(self) -> _Typed:
        left = self._compared()
        while self._take("&&"):
            left = _negated(_either(_negated(left), _negated(self._compared())))
        return left

    def _compared(self) -> _Typed:
        left = self._sum()
        kind, token = self.peek()
        if kind == "op" and token in _OPPOSITE:
            self._at += 1
            left = _comparison(token, left, self._sum())
            if self.peek()[0] == "op" and self.peek()[1] in _OPPOSITE:
                raise _Beyond  # a chain compares a flag: left to the library
        elif (kind, token) == ("name", "in"):
            self._at += 1
            left = _one_of(left, self._texts())
        return left

    def _sum(self) -> _Typed:
        left = self._product()
        while (operator := self._take("+", "-")) is not None:
            left = self._calculated(operator, left, self._product())
        return left

    def _product(self) -> _Typed:
        left = self._unary()
        while (operator := self._take("*", "/")) is not None:
            left = self._calculated(operator, left, self._unary())
        return left

    def _calculated(self, operator: str, left: _Typed, right: _Typed) -> _Typed:
        # CEL adds no int to a double, and ints among themselves can overflow or divide by zero: for the library.
        kinds = {left.kind, right.kind}
        if kinds == {"int", "double"} or (kinds != {"text"} and not kinds <= {"int", "double"}):
            raise _Mismatch
        if kinds != {"double"}:
            raise _Beyond
        self.calculates = True
        divided = _divided(left, right)
        if operator == "/":
            if not right.code[0].isdigit() or right.code == "0.0":
                divided += (f"{right.code}!=0.0",)
            return _Typed("double", f"divide({left.code},{right.code})", divided=divided)
        return _Typed("double", f"({left.code}{operator}{right.code})", divided=divided)

    def _unary(self) -> _Typed:
        if self._take("!"):
            return _negated(self._unary())
        if self._take("-"):
            inner = self._unary()
            if inner.kind not in ("double", "int"):
                raise _Mismatch
            return _Typed(inner.kind, f"(-{inner.code})", divided=inner.divided)
        return self._primary()

    def _primary(self) -> _Typed:
        kind, token = self.peek()
        self._at += 1
        if kind == "double":
            number = float(token)
            if number == float("inf"):
                raise _Beyond
            return _Typed("double", repr(number))
        if kind == "int":
            # Beyond 2^53 a comparison with a double would round.
            if int(token) > _EXACT_INT_MAX:
                raise _Beyond
            return _Typed("int", repr(float(token)))
        if kind == "text":
            return _Typed("text", "", text=token[1:-1])
        if kind == "name":
            return self._named(token)
        if (kind, token) == ("op", "("):
            inner = self.rule()
            self._expect(")")
            return inner
        raise _Beyond

    def _named(self, name: str) -> _Typed:
        if name in ("true", "false"):
            return _flag(name == "true")
        found = self._columns.get(name)
        if name == "distance_km" and found is None:
            return self._distance()
        if found is None or self.peek()[1] == "(":
            raise _Beyond
        at, column = found
        if self._take("."):
            return self._asked(_Typed("text", f"v[{at}]", categories=column.categories), column.kind)
        if column.kind == "flag":
            return _Typed("flag", f"(v[{at}]==1.0)", f"(v[{at}]!=1.0)")
        if column.kind in ("text", "hashed"):
            return _Typed("text", f"v[{at}]", categories=column.categories, hashed=column.kind == "hashed")
        return _Typed("double", f"v[{at}]")

    def _distance(self) -> _Typed:
        parts = []
        for sign in "(,,,":
            self._expect(sign)
            part = self._sum()
            if part.kind not in ("double", "int"):
                raise _Beyond
            parts.append(part)
        self._expect(")")
        self.calculates = True
        return _Typed("double", f"distance_km({','.join(part.code for part in parts)})", divided=_divided(*parts))

    def _asked(self, column: _Typed, kind: str) -> _Typed:
        """What is asked of a text, answered for each of its values by the library itself."""
        (_, method), (sign, argument) = self.peek(), self._tokens[min(self._at + 2, len(self._tokens) - 1)]
        if kind != "text" or method not in _OF_TEXTS or sign not in ("text", "escaped"):
            raise _Beyond
        self._at += 1
        self._expect("(")
        self._at += 1
        self._expect(")")
        program = cel.compile(f"value.{method}({argument})")
        return _one_of(column, [text for text in ("", *column.categories) if program.execute({"value": text})])

    def _texts(self) -> list[str]:
        self._expect("[")
        texts = []
        while True:
            kind, token = self.peek()
            if kind != "text":
                raise _Beyond
            self._at += 1
            texts.append(token[1:-1])
            if not self._take(","):
                break
        self._expect("]")
        return texts

    def _take(self, *operators: str) -> str | None:
        kind, token = self.peek()
        if kind == "op" and token in operators:
            self._at += 1
            return token
        return None

    def _expect(self, operator: str) -> None:
        if self._take(operator) is None:
            raise _Beyond


def _brackets(code: str) -> int:
    """How many brackets stand within each other."""
    return max(accumulate((character in "([") - (character in ")]") for character in code))


def _divided(*parts: _Typed) -> tuple[str, ...]:
    """The conditions of several numbers, each once."""
    return tuple(dict.fromkeys(condition for part in parts for condition in part.divided))


def _flag(value: bool) -> _Typed:
    """A constant."""
    return _Typed("flag", str(value), str(not value))


def _negated(inner: _Typed) -> _Typed:
    if inner.kind != "flag":
        raise _Mismatch
    return _Typed("flag", inner.no, inner.code)


def _either(left: _Typed, right: _Typed) -> _Typed:
    if not left.kind == right.kind == "flag":
        raise _Mismatch
    return _Typed("flag", f"({left.code} or {right.code})", f"({left.no} and {right.no})")


def _comparison(operator: str, left: _Typed, right: _Typed) -> _Typed:
    kinds = {left.kind, right.kind}
    if kinds <= {"double", "int"} and "double" in kinds:
        sure = "".join(f"{condition} and " for condition in _divided(left, right))
        yes, no = (f"({sure}{left.code}{sign}{right.code})" for sign in (operator, _OPPOSITE[operator]))
        return _Typed("flag", yes, no)
    if kinds == {"text"} and operator in ("==", "!=") and left.text is not None and right.text is not None:
        equal = left.text == right.text
        return _flag(equal if operator == "==" else not equal)
    if kinds == {"text"} and operator in ("==", "!=") and (left.text is None) != (right.text is None):
        column, literal = (left, right) if right.text is not None else (right, left)
        assert literal.text is not None
        same = _one_of(column, [literal.text])
        return same if operator == "==" else _negated(same)
    if operator not in ("==", "!=") and len(kinds) == 2 and kinds != {"double", "int"}:
        raise _Mismatch
    raise _Beyond


def _one_of(column: _Typed, texts: Sequence[str]) -> _Typed:
    if column.kind != "text":
        raise _Beyond
    if column.text is not None:
        return _flag(column.text in texts)
    value = column.code
    if column.hashed:
        return _one_of_hashed(value, texts)
    wanted = [repr(float(at)) for at, category in enumerate(column.categories) if category in texts]
    yes = [f"{value}=={index}" for index in wanted]
    no = [f"{value}!={index}" for index in wanted]
    if "" in texts:
        # A missing text is "", and its index is NaN: the one number that differs from itself.
        yes.append(f"{value}!={value}")
        no.append(f"{value}=={value}")
    if not yes:
        return _flag(False)
    return _Typed("flag", f"({' or '.join(yes)})", f"({' and '.join(no)})")


def _one_of_hashed(value: str, texts: Sequence[str]) -> _Typed:
    """Two texts of 48 equal bits would be taken for the same."""
    yes = [f"{value}=={text_hash(text)!r}" for text in texts if text]
    no = [f"{value}!={text_hash(text)!r}" for text in texts if text]
    if "" in texts:
        # Missing is NaN, and the hash of a text that was empty is -1.
        yes.append(f"not {value}>=0.0")
        no.append(f"{value}>=0.0")
    return _Typed("flag", f"({' or '.join(yes)})", f"({' and '.join(no)})") if yes else _flag(False)
