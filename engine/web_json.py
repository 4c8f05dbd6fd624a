"""Messages in JSON, and where an object does not fit its message, in words.

The parser of Protobuf names neither the place nor what fits. It takes more than the mapping has, too: true for 1, texts
that Python reads as numbers, a number of an enum's after all but 32 bits of it are gone, one field in two spellings.

>>> from opportune.v1 import decisions_pb2
>>> misfit({"channel": "web", "context": {"minutes": 5}}, decisions_pb2.DecideRequest)
'context["minutes"]: 5, expected an object like {"number": 1}'
>>> misfit({"context": {"month": {"text": 5}}}, decisions_pb2.DecideRequest)
'context["month"].text: 5, expected a text'
>>> misfit({"context": {"minutes": {"number": True}}}, decisions_pb2.DecideRequest)
'context["minutes"].number: true, expected a number'
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from engine.deepjson import written
from engine.errors import InvalidArgument
from engine.leads.lead import ENDS
from engine.lifecycle import REPORTABLE, in_words
from engine.limits import MISFIT_LOOK_ENTRIES_MAX

MessageT = TypeVar("MessageT", bound=Message)

_SHOWN_MAX: Final = 80
_WHOLE: Final = {
    FieldDescriptor.CPPTYPE_INT32: ("-2^31", "2^31 - 1"),
    FieldDescriptor.CPPTYPE_INT64: ("-2^63", "2^63 - 1"),
    FieldDescriptor.CPPTYPE_UINT32: ("0", "2^32 - 1"),
    FieldDescriptor.CPPTYPE_UINT64: ("0", "2^64 - 1"),
}


_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity")
"""A number that is written as a text. Python reads more: other digits, spaces, underscores."""
_ENUM_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")
_STAGES: Final = {
    "opportune.v1.ReportRequest.stage": in_words(REPORTABLE),
    "opportune.v1.CompleteLeadRequest.outcome": in_words(ENDS),
}
"""Those that a field takes: not all."""


def parsed(given: dict[str, Any], message: MessageT, what: str) -> MessageT:
    """The message with what an object holds; `what` it would be, for errors. Raises InvalidArgument."""
    kind = type(message)
    try:
        if _exact(given, cast(Descriptor, kind.DESCRIPTOR)):
            return json_format.ParseDict(given, message)
        error: Exception | str = "a field is written as no JSON of this message is"
    except (json_format.ParseError, AttributeError, TypeError) as problem:
        error = problem
    raise InvalidArgument(misfit(given, kind) or f"body: no {what}: {error}")


def misfit(given: dict[str, Any], message: type[Message]) -> str | None:
    """The first field that does not fit, what came and what was expected; None where it cannot be told."""
    return _in_object(given, cast(Descriptor, message.DESCRIPTOR), "")


def _in_object(given: Any, message: Descriptor, path: str) -> str | None:
    if not isinstance(given, dict):
        return f"{path}: {_shown(given)}, expected an object like {_example(message)}"
    fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
    before = f"{path}." if path else ""
    taken: dict[str, str] = {}
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            there = ", ".join(field.name for field in message.fields)
            return f"{before}{name[:_SHOWN_MAX]}: no such field; there are {there}"
        group = field.containing_oneof.name if field.containing_oneof is not None else field.name
        spelt_twice = field.name in given and field.json_name in given
        if (value is not None or spelt_twice) and (other := taken.setdefault(group, name)) != name:
            return f"{before}{name}: it is there together with {other}, expected one of them"
        if not _fits(name, value, message):
            return _in_field(value, field, message, name, before + name)
    return None


def _in_field(given: Any, field: FieldDescriptor, message: Descriptor, name: str, path: str) -> str | None:
    parts: Iterator[tuple[str, Any, Any]]
    one = field
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        one = field.message_type.fields_by_name["value"]
        if not isinstance(given, dict):
            return f"{path}: {_shown(given)}, expected an object with {_expected(one)} for each name"
        parts = ((f"{path}[{_shown(key)}]", value, {key: value}) for key, value in given.items())
    elif field.is_repeated:
        if not isinstance(given, list):
            return f"{path}: {_shown(given)}, expected a list"
        parts = ((f"{path}[{at}]", value, [value]) for at, value in enumerate(given))
    else:
        return _in_one(given, field, path)
    for where, value, alone in islice(parts, MISFIT_LOOK_ENTRIES_MAX):
        if not _fits(name, alone, message):
            return _in_one(value, one, where)
    return None


def _in_one(given: Any, field: FieldDescriptor, path: str) -> str | None:
    if field.message_type is not None:
        return _in_object(given, field.message_type, path)
    return f"{path}: {_shown(given)}, expected {_expected(field)}"


def _fits(name: str, value: Any, message: Descriptor) -> bool:
    try:
        json_format.ParseDict({name: value}, GetMessageClass(message)())
    except (json_format.ParseError, AttributeError, TypeError, ValueError):
        return False
    return _exact({name: value}, message)


class _Field(NamedTuple):
    """What the parser does not look at of a field."""

    fits: Callable[[Any], bool]
    """Of one value, that of an entry of a list or a map; whatever is of another shape fits, and the parser refuses it.
    """
    shape: type
    """dict: a map; list: repeated; object: neither."""
    twin: str
    """Its other spelling; "" if there is none."""


@cache
def _fields(message: Descriptor) -> dict[str, _Field]:
    """By their names in JSON, those of which the parser takes more than there should be."""
    found = {}
    for field in message.fields:
        one, shape = field, list if field.is_repeated else object
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            one, shape = field.message_type.fields_by_name["value"], dict
        for name, twin in ((field.name, field.json_name), (field.json_name, field.name)):
            found[name] = _Field(_check(one), shape, twin if twin != name else "")
    return found


def _check(field: FieldDescriptor) -> Callable[[Any], bool]:
    if (inner := field.message_type) is not None:
        return lambda given: not isinstance(given, dict) or _exact(given, inner)
    if field.enum_type is not None:
        names = frozenset(value.name for value in field.enum_type.values)
        numbers = frozenset(value.number for value in field.enum_type.values)
        return lambda given: _is_enum(given, names, numbers)
    if field.cpp_type in (field.CPPTYPE_BOOL, field.CPPTYPE_STRING):
        return lambda given: True
    return _is_number


def _is_number(given: Any) -> bool:
    return given is not True and given is not False and (not isinstance(given, str) or bool(_NUMBER.fullmatch(given)))


def _is_enum(given: Any, names: frozenset[str], numbers: frozenset[int]) -> bool:
    if isinstance(given, str):
        return given in names or (bool(_ENUM_NUMBER.fullmatch(given)) and int(given) in numbers)
    if isinstance(given, (int, float)):
        return not isinstance(given, bool) and given in numbers  # 3.0 is: JSON has one kind of number
    return True


def _exact(given: dict[str, Any], message: Descriptor) -> bool:
    """Whether what fits in the parser's eyes is written as the mapping has it, each field once."""
    fields = _fields(message)
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            continue
        if field.twin and field.twin in given:
            return False
        if field.shape is object:
            fit = field.fits(value)
        elif isinstance(value, dict if field.shape is dict else list):
            fit = all(map(field.fits, value.values() if isinstance(value, dict) else value))
        else:
            continue  # null, or what the parser refuses
        if not fit:
            return False
    return True


def _expected(field: FieldDescriptor) -> str:
    """What fits one value of a field."""
    if field.message_type is not None:
        return f"an object like {_example(field.message_type)}"
    if field.enum_type is not None:
        names = ", ".join(value.name for value in field.enum_type.values if value.number)  # 0: nothing was said
        return f"one of {_STAGES.get(field.full_name, names)}"
    if field.cpp_type in _WHOLE:
        return "a whole number from {} to {}".format(*_WHOLE[field.cpp_type])
    if field.type == field.TYPE_BYTES:
        return "a text in base64"
    return {field.CPPTYPE_BOOL: "true or false", field.CPPTYPE_STRING: "a text"}.get(field.cpp_type, "a number")


def _example(message: Descriptor) -> str:
    """An object with the first fields of a message, one of those that exclude each other."""
    chosen: dict[str, FieldDescriptor] = {}
    for field in message.fields:
        if field.message_type is None and not field.is_repeated:
            chosen.setdefault(field.containing_oneof.name if field.containing_oneof else field.name, field)
    return json.dumps({field.name: _sample(field) for field in islice(chosen.values(), 2)}, ensure_ascii=False)


def _sample(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].name
    return {field.CPPTYPE_STRING: "…", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)


def _shown(value: Any) -> str:
    text = written(value).decode()
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(text)} characters)"
