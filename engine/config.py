"""Reading a configuration: from a file to a checked Config, with every problem told as "file:line: place: what was
expected", all problems at once.

Nothing here computes: the compiled forms are in features.Layout, models.Transform, engine.rules and engine.catalogue.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from engine import limits
from engine.config_base import LANGUAGE_PATTERN, NAME_PATTERN
from engine.config_check import Location, problems_of
from engine.config_schema import Config, Offer
from engine.errors import ConfigError
from engine.features_check import problems_of_new
from engine.groups import Expanded, expanded

FormT = TypeVar("FormT", bound=BaseModel)
_PATTERNS: Final = {
    NAME_PATTERN: "expected a name of a-z, 0-9 and _ that begins with a letter",
    LANGUAGE_PATTERN: "expected a tag like en or pt-BR",
}
_KINDS: Final = {
    "extra_forbidden": "not a setting that exists here",
    "model_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "string_type": "expected a text",
    "string_too_short": "expected a text that is not empty",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "float_type": "expected a valid number",
    "float_parsing": "expected a valid number",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
}
"""Pydantic's kinds of problems, in words of a configuration."""
_TOO_DEEP: Final = f"lists and mappings nested deeper than {limits.CONFIG_NESTED_ENTRIES_MAX}"


def load(path: Path) -> tuple[Config, str, bytes]:
    """(configuration, version, text) of a file. Raises ConfigError that names file, line and what was expected."""
    text = load_text(path)
    config, problems = read(text, str(path), new=True)
    if problems:
        raise ConfigError("\n".join(problems))
    return config, version_of(text), text


def load_text(path: Path) -> bytes:
    """The text of a file, no more of it than a configuration may have. Raises ConfigError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limits.CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def version_of(text: bytes) -> str:
    """Version of a configuration: 16 hexadecimal digits of the hash of its text."""
    return blake2b(text, digest_size=8).hexdigest()


def parse(text: bytes, name: str = "configuration") -> Config:
    """Read and check a configuration that may have been in force. Raises ConfigError with one line a problem."""
    config, problems = read(text, name)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read(text: bytes, name: str = "configuration", *, new: bool = False) -> tuple[Config, list[str]]:
    """(configuration, what is wrong with it, a line a problem). Raises ConfigError if so much is wrong that there is no
    configuration without it.

    Of a `new` one, which is to be put in force, more is asked than of one that was.
    """
    tree = _read(text, name, "a mapping that begins with 'opportune: 1'")
    whole = expanded(_plain(tree))
    problems = list(whole.problems)
    for place, settings in whole.unused:
        # Of an offer that is fine but for what the group says.
        _, found = _validated(Offer, {"id": "x", "value": 1.0, "treatments": [{"text": "x"}], **settings})
        problems += [((*place, *at), what) for at, what in found]
    config, found = _validated(Config, whole.tree)
    if config is None:
        # Further problems are easier told now than one by one: with what is wrong left out, if that can be done.
        problems += found
        config, _ = _validated(Config, _without(whole.tree, [place for place, _ in found]))
    if config is not None:
        problems += problems_of(config)
        problems += problems_of_new(config) if new else []
    # What a group says wrong is wrong in all of its offers, and told once.
    told = dict.fromkeys((whole.origin(loc), what) for loc, what in problems)
    lines = [f"{name}:{_line(tree, loc)}: {_place(loc)}: {what}" for loc, what in told]
    if config is None:
        raise ConfigError("\n".join(lines))
    return config, lines


def _validated(form: type[FormT], given: Any) -> tuple[FormT | None, list[tuple[Location, str]]]:
    """What a tree holds, or what is wrong with it."""
    try:
        return form.model_validate(given), []
    except ValidationError as error:
        return None, _in_words(_told(error.errors(include_url=False)), given)


def checked(text: bytes, name: str, form: type[FormT], expected: str) -> tuple[FormT, Any]:
    """(what a YAML text holds, its tree). Raises ConfigError with one line a problem; `expected` is for the whole."""
    tree = _read(text, name, expected)
    content, found = _validated(form, _plain(tree))
    if content is None:
        raise ConfigError("\n".join(f"{name}:{_line(tree, loc)}: {_place(loc)}: {what}" for loc, what in found))
    return content, tree


@lru_cache(maxsize=1)
def _loaded(text: bytes) -> Any:
    """The tree of a YAML text; nobody changes it.

    That of a thousand offers takes more than a second. The supervisor has loaded it, so the workers that it forks, and
    forks again when one dies, have it already.
    """
    return _reader().load(text.decode())


def _read(text: bytes, name: str, expected: str) -> Any:
    """The tree of a YAML text, which is a mapping. Raises ConfigError."""
    if len(text) > limits.CONFIG_BYTES_MAX:
        raise ConfigError(f"{name}: more than {limits.CONFIG_BYTES_MAX} bytes")
    try:
        tree = _loaded(text)
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: byte {error.start} is not UTF-8") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{name}:1: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}:1: expected {expected}")
    _measured(tree, name, {})
    return tree


class _Composer(Composer):
    """Stops where lists and mappings are nested too deep, before Python's own stack ends."""

    _deep = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._deep += 1
        if self._deep > limits.CONFIG_NESTED_ENTRIES_MAX + 1:  # the innermost is no list, but a value
            raise ComposerError(None, None, _TOO_DEEP, self.parser.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._deep -= 1
        return node


def _reader() -> YAML:
    yaml = YAML(typ="rt")
    yaml.Composer = _Composer
    return yaml


def _measured(node: Any, name: str, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(values, depth) of a tree with what its aliases stand for. Raises ConfigError where that is too much.

    `known` has what was measured before, by the identity of lists and mappings: ten aliases of ten aliases of … are
    looked at once each. None contains itself: the YAML library has nothing there.
    """
    if not isinstance(node, (dict, list)):
        return 1, 0
    if id(node) in known:
        return known[id(node)]
    here = f"{name}:{node.lc.line + 1}"  # type: ignore[union-attr]  # ruamel's lists and mappings carry their lines
    entries, depth = 1, 0
    for each in node.values() if isinstance(node, dict) else node:
        within, deep = _measured(each, name, known)
        entries, depth = entries + within, max(depth, deep)
    if entries > limits.CONFIG_ENTRIES_MAX:
        raise ConfigError(f"{here}: stands for {entries} values with its aliases, at most {limits.CONFIG_ENTRIES_MAX}")
    if depth >= limits.CONFIG_NESTED_ENTRIES_MAX:
        raise ConfigError(f"{here}: {_TOO_DEEP}")
    known[id(node)] = entries, depth + 1
    return entries, depth + 1


class Places:
    """Where parts of a configuration stand in its text, for errors found when it is compiled."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    @cached_property
    def _tree(self) -> Any:
        return _loaded(self._text)

    @cached_property
    def _whole(self) -> Expanded:
        return expanded(_plain(self._tree))

    def of(self, place: Location) -> tuple[int, Location]:
        """(line, place) of what stands at a place once offers have inherited."""
        origin = self._whole.origin(place)
        return _line(self._tree, origin), origin


def _without(plain: Any, places: Sequence[Location]) -> Any:
    """A configuration without some of its settings. Entries of lists stay, so that the others keep their places."""
    plain = deepcopy(plain)
    for *path, last in places:
        node = plain
        for step in path:
            within = step in node if isinstance(node, dict) else isinstance(node, list) and isinstance(step, int)
            if not within:
                break
            node = node[step]
        if isinstance(node, dict):
            node.pop(last, None)
    return plain


def line_of(text: bytes, place: Location) -> int:
    """Line of one such place."""
    return Places(text).of(place)[0]


def _plain(node: Any) -> Any:
    """The tree without the YAML library's own types, which pydantic would refuse in strict places."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _line(tree: Any, loc: Location) -> int:
    """The line of the deepest part of `loc` that is in the file."""
    line, node = 0, tree
    for step in loc:
        try:
            if isinstance(node, dict) and step in node:
                line = node.lc.key(step)[0]  # type: ignore[attr-defined]  # ruamel's mappings carry their lines
                node = node[step]
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                line = node.lc.item(step)[0]  # type: ignore[attr-defined]
                node = node[step]
            else:
                break
        except (AttributeError, KeyError):
            break
    return line + 1


def _place(loc: Location) -> str:
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "file"


def _told(problems: Sequence[Any]) -> list[Any]:
    """Without "too few" of a list whose entries are wrong: there are enough, once they are mended."""
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or all(len(place) <= len(problem["loc"]) or place[: len(problem["loc"])] != problem["loc"] for place in places)
    ]


def _in_words(problems: Sequence[Any], given: Any) -> list[tuple[Location, str]]:
    """(place, what was expected) of pydantic's problems, once a place where several things may stand."""
    placed = [(*_of_file(problem, given), problem) for problem in problems]
    deepest: dict[Location, int] = {}
    for place, choice, _ in placed:
        if choice is not None:
            deepest[choice] = max(deepest.get(choice, 0), len(place))
    told: dict[Location, list[str]] = {}
    shown: dict[Location, str] = {}
    for place, choice, problem in placed:
        # Of what may stand somewhere, that is meant which fits furthest.
        if choice is None or len(place) == deepest[choice]:
            words = _words(problem)
            ways = told.setdefault(place, [])
            if words not in ways:
                ways.append(words if not ways else words.removeprefix("expected "))
            shown[place] = _shown(problem)
    return [(place, " or ".join(ways) + shown[place]) for place, ways in told.items()]


def _of_file(problem: Any, given: Any) -> tuple[Location, Location | None]:
    """(the place without pydantic's names of types, where the first of them stood; None if it has none)."""
    place: list[int | str] = []
    choice: Location | None = None
    node, loc = given, problem["loc"]
    for at, step in enumerate(loc):
        in_mapping = isinstance(node, dict) and step in node
        in_list = isinstance(node, list | tuple) and isinstance(step, int) and step < len(node)
        absent = problem["type"] == "missing" and at == len(loc) - 1
        if in_mapping or in_list:
            node = node[step]
        elif isinstance(step, str) and not absent:
            choice = tuple(place) if choice is None else choice
            continue
        place.append(step)
    return tuple(place), choice


def _shown(problem: Any) -> str:
    """What stands there, where it is short and does not stand in the words already."""
    given, kind = problem.get("input"), problem["type"]
    told = isinstance(given, (dict, list, tuple)) or kind in ("missing", "extra_forbidden")
    return "" if told else f", got {given!r}"


def _words(problem: Any) -> str:
    kind, about = problem["type"], problem.get("ctx", {})
    if kind == "string_pattern_mismatch" and about["pattern"] in _PATTERNS:
        return _PATTERNS[about["pattern"]]
    if kind == "missing" and isinstance(problem["loc"][-1], int):
        return "expected another entry"
    if kind in ("too_short", "too_long"):
        bound = f"at least {about['min_length']}" if kind == "too_short" else f"at most {about['max_length']}"
        return f"expected {bound} in the list, there are {about['actual_length']}"
    if kind == "string_too_long":
        return f"expected at most {about['max_length']} characters"
    if kind in _KINDS:
        return _KINDS[kind]
    message: str = problem["msg"]
    return re.sub(r"^(Value error, |Input should be )", lambda m: "expected " if "Input" in m[0] else "", message)
