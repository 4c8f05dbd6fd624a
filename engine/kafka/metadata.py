"""Topics with their ids, which aiokafka (up to 0.14) cannot ask for: ids came with version 10 of the request.

The id tells a topic that was deleted and made again from the one it replaced; nothing else that a broker says does.
https://kafka.apache.org/protocol#The_Messages_Metadata
"""

from io import BytesIO
from uuid import UUID

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)


class _Uuid(AbstractType):  # type: ignore[misc]  # aiokafka's types are not known to mypy
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _Answer(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster", CompactString()),
        ("controller", Int32),
        (
            "topics",
            CompactArray(
                ("error", Int16),
                ("name", CompactString()),
                ("id", _Uuid),
                ("internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("in_sync", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _Uuid), ("name", CompactString()), ("tags", TaggedFields))),
        ("may_create", Boolean),
        ("with_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicsRequest(Request[_Question]):  # type: ignore[misc]
    """Asks for topics by name, without having the broker make them."""

    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_Question]) -> _Question:
        """The request as it is sent."""
        return request_struct_class([(UUID(int=0), name, {}) for name in self._names], False, False, {})


def topics_of(answer: _Answer) -> dict[str, tuple[int, str]]:
    """(partitions, id) of each topic of an answer that exists."""
    found = {}
    for topic in answer.to_object()["topics"]:
        if topic["error"] == 0:
            found[topic["name"]] = (len(topic["partitions"]), str(topic["id"]))
    return found
