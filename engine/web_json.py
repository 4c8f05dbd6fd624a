"""Where a JSON object does not fit its message, in words: the parser's own name neither the place nor what fits.

>>> from opportune.v1 import decisions_pb2
>>> misfit({"channel": "web", "context": {"minutes": 5}}, decisions_pb2.DecideRequest)
'context["minutes"]: 5, expected an object like {"number": 1}'
>>> misfit({"context": {"month": {"text": 5}}}, decisions_pb2.DecideRequest)
'context["month"].text: 5, expected a text'
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, cast

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from engine.limits import MISFIT_LOOK_ENTRIES_MAX

_SHOWN_MAX: Final = 80
_WHOLE: Final = {
    FieldDescriptor.CPPTYPE_INT32: ("-2^31", "2^31 - 1"),
    FieldDescriptor.CPPTYPE_INT64: ("-2^63", "2^63 - 1"),
    FieldDescriptor.CPPTYPE_UINT32: ("0", "2^32 - 1"),
    FieldDescriptor.CPPTYPE_UINT64: ("0", "2^64 - 1"),
}


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
        if value is not None and (other := taken.setdefault(group, name)) != name:
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
    return True


def _expected(field: FieldDescriptor) -> str:
    """What fits one value of a field."""
    if field.message_type is not None:
        return f"an object like {_example(field.message_type)}"
    if field.enum_type is not None:
        return f"one of {', '.join(value.name for value in field.enum_type.values)}"
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
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # deeper than it writes, and it reads deeper
        return f"a deep {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(text)} characters)"
