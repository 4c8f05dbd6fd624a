from opportune.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LineageAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINEAGE_ACTION_UNSPECIFIED: _ClassVar[LineageAction]
    LINEAGE_ACTION_LINKED_TO: _ClassVar[LineageAction]
    LINEAGE_ACTION_UNLINKED_FROM: _ClassVar[LineageAction]
    LINEAGE_ACTION_LINK_REFUSED: _ClassVar[LineageAction]
    LINEAGE_ACTION_GAINED: _ClassVar[LineageAction]
    LINEAGE_ACTION_KEPT: _ClassVar[LineageAction]
    LINEAGE_ACTION_LOST: _ClassVar[LineageAction]
LINEAGE_ACTION_UNSPECIFIED: LineageAction
LINEAGE_ACTION_LINKED_TO: LineageAction
LINEAGE_ACTION_UNLINKED_FROM: LineageAction
LINEAGE_ACTION_LINK_REFUSED: LineageAction
LINEAGE_ACTION_GAINED: LineageAction
LINEAGE_ACTION_KEPT: LineageAction
LINEAGE_ACTION_LOST: LineageAction

class Entity(_message.Message):
    __slots__ = ("kind", "id")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    kind: str
    id: str
    def __init__(self, kind: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class LinkRequest(_message.Message):
    __slots__ = ("request_id", "customer_id", "identities", "same_customer_ids", "entities")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    SAME_CUSTOMER_IDS_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    customer_id: str
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    same_customer_ids: _containers.RepeatedScalarFieldContainer[str]
    entities: _containers.RepeatedCompositeFieldContainer[Entity]
    def __init__(self, request_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ..., same_customer_ids: _Optional[_Iterable[str]] = ..., entities: _Optional[_Iterable[_Union[Entity, _Mapping]]] = ...) -> None: ...

class UnlinkRequest(_message.Message):
    __slots__ = ("request_id", "customer_id", "identities", "same_customer_ids", "entities")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    SAME_CUSTOMER_IDS_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    customer_id: str
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    same_customer_ids: _containers.RepeatedScalarFieldContainer[str]
    entities: _containers.RepeatedCompositeFieldContainer[Entity]
    def __init__(self, request_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ..., same_customer_ids: _Optional[_Iterable[str]] = ..., entities: _Optional[_Iterable[_Union[Entity, _Mapping]]] = ...) -> None: ...

class LinkResponse(_message.Message):
    __slots__ = ("recorded", "positions")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    positions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recorded: _Optional[int] = ..., positions: _Optional[_Iterable[str]] = ...) -> None: ...

class LineageRequest(_message.Message):
    __slots__ = ("customer_id", "identity")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    identity: _common_pb2.Identity
    def __init__(self, customer_id: _Optional[str] = ..., identity: _Optional[_Union[_common_pb2.Identity, _Mapping]] = ...) -> None: ...

class LineageStep(_message.Message):
    __slots__ = ("time_ms", "action", "name", "source", "request_id", "position", "reason")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    action: LineageAction
    name: str
    source: str
    request_id: str
    position: str
    reason: str
    def __init__(self, time_ms: _Optional[int] = ..., action: _Optional[_Union[LineageAction, str]] = ..., name: _Optional[str] = ..., source: _Optional[str] = ..., request_id: _Optional[str] = ..., position: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class IdentityLink(_message.Message):
    __slots__ = ("name", "since_ms", "source", "via", "current")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    since_ms: int
    source: str
    via: str
    current: bool
    def __init__(self, name: _Optional[str] = ..., since_ms: _Optional[int] = ..., source: _Optional[str] = ..., via: _Optional[str] = ..., current: _Optional[bool] = ...) -> None: ...

class EntityLink(_message.Message):
    __slots__ = ("entity", "time_ms", "via")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    entity: Entity
    time_ms: int
    via: str
    def __init__(self, entity: _Optional[_Union[Entity, _Mapping]] = ..., time_ms: _Optional[int] = ..., via: _Optional[str] = ...) -> None: ...

class LineageResponse(_message.Message):
    __slots__ = ("name", "belongs_to", "identities", "entities", "steps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BELONGS_TO_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    belongs_to: str
    identities: _containers.RepeatedCompositeFieldContainer[IdentityLink]
    entities: _containers.RepeatedCompositeFieldContainer[EntityLink]
    steps: _containers.RepeatedCompositeFieldContainer[LineageStep]
    def __init__(self, name: _Optional[str] = ..., belongs_to: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[IdentityLink, _Mapping]]] = ..., entities: _Optional[_Iterable[_Union[EntityLink, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[LineageStep, _Mapping]]] = ...) -> None: ...
