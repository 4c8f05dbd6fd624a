from opportune.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportRequest(_message.Message):
    __slots__ = ("outcome_id", "decision_id", "offer_id", "stage", "time_ms", "value", "channel", "attributes", "corrects", "rewards", "customer_id")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    class RewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    OUTCOME_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CORRECTS_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    outcome_id: str
    decision_id: str
    offer_id: str
    stage: _common_pb2.Stage
    time_ms: int
    value: float
    channel: str
    attributes: _containers.MessageMap[str, _common_pb2.Value]
    corrects: str
    rewards: _containers.ScalarMap[str, float]
    customer_id: str
    def __init__(self, outcome_id: _Optional[str] = ..., decision_id: _Optional[str] = ..., offer_id: _Optional[str] = ..., stage: _Optional[_Union[_common_pb2.Stage, str]] = ..., time_ms: _Optional[int] = ..., value: _Optional[float] = ..., channel: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _common_pb2.Value]] = ..., corrects: _Optional[str] = ..., rewards: _Optional[_Mapping[str, float]] = ..., customer_id: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("position", "duplicate", "stage", "late")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    position: str
    duplicate: bool
    stage: _common_pb2.Stage
    late: bool
    def __init__(self, position: _Optional[str] = ..., duplicate: _Optional[bool] = ..., stage: _Optional[_Union[_common_pb2.Stage, str]] = ..., late: _Optional[bool] = ...) -> None: ...
