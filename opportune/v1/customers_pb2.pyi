from opportune.v1 import common_pb2 as _common_pb2
from opportune.v1 import decisions_pb2 as _decisions_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetCustomerRequest(_message.Message):
    __slots__ = ("customer_id", "identities", "time_ms")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    time_ms: int
    def __init__(self, customer_id: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ..., time_ms: _Optional[int] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "value", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: _common_pb2.Value
    unit: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ..., unit: _Optional[str] = ...) -> None: ...

class Customer(_message.Message):
    __slots__ = ("customer_id", "state", "features", "offers", "events", "duplicates", "late", "bytes")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    state: _decisions_pb2.StateFreshness
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    offers: _containers.RepeatedCompositeFieldContainer[_decisions_pb2.OpenOffer]
    events: int
    duplicates: int
    late: int
    bytes: int
    def __init__(self, customer_id: _Optional[str] = ..., state: _Optional[_Union[_decisions_pb2.StateFreshness, _Mapping]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., offers: _Optional[_Iterable[_Union[_decisions_pb2.OpenOffer, _Mapping]]] = ..., events: _Optional[int] = ..., duplicates: _Optional[int] = ..., late: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...
