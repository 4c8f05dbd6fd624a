from opportune.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeadState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEAD_STATE_UNSPECIFIED: _ClassVar[LeadState]
    LEAD_STATE_OPEN: _ClassVar[LeadState]
    LEAD_STATE_TAKEN: _ClassVar[LeadState]
    LEAD_STATE_DONE: _ClassVar[LeadState]
    LEAD_STATE_CLOSED: _ClassVar[LeadState]
LEAD_STATE_UNSPECIFIED: LeadState
LEAD_STATE_OPEN: LeadState
LEAD_STATE_TAKEN: LeadState
LEAD_STATE_DONE: LeadState
LEAD_STATE_CLOSED: LeadState

class Lead(_message.Message):
    __slots__ = ("lead_id", "list_id", "decision_id", "customer_id", "offer_id", "treatment", "worth", "planned_seller", "state", "seller", "from_ms", "until_ms", "expires_ms", "changed_ms", "outcome", "returns")
    LEAD_ID_FIELD_NUMBER: _ClassVar[int]
    LIST_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    WORTH_FIELD_NUMBER: _ClassVar[int]
    PLANNED_SELLER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SELLER_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    lead_id: str
    list_id: str
    decision_id: str
    customer_id: str
    offer_id: str
    treatment: str
    worth: float
    planned_seller: str
    state: LeadState
    seller: str
    from_ms: int
    until_ms: int
    expires_ms: int
    changed_ms: int
    outcome: _common_pb2.Stage
    returns: _containers.RepeatedCompositeFieldContainer[LeadReturn]
    def __init__(self, lead_id: _Optional[str] = ..., list_id: _Optional[str] = ..., decision_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., offer_id: _Optional[str] = ..., treatment: _Optional[str] = ..., worth: _Optional[float] = ..., planned_seller: _Optional[str] = ..., state: _Optional[_Union[LeadState, str]] = ..., seller: _Optional[str] = ..., from_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., changed_ms: _Optional[int] = ..., outcome: _Optional[_Union[_common_pb2.Stage, str]] = ..., returns: _Optional[_Iterable[_Union[LeadReturn, _Mapping]]] = ...) -> None: ...

class LeadReturn(_message.Message):
    __slots__ = ("seller", "reason", "time_ms")
    SELLER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    seller: str
    reason: str
    time_ms: int
    def __init__(self, seller: _Optional[str] = ..., reason: _Optional[str] = ..., time_ms: _Optional[int] = ...) -> None: ...

class NewLead(_message.Message):
    __slots__ = ("decision_id", "seller", "from_ms", "until_ms")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    SELLER_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    seller: str
    from_ms: int
    until_ms: int
    def __init__(self, decision_id: _Optional[str] = ..., seller: _Optional[str] = ..., from_ms: _Optional[int] = ..., until_ms: _Optional[int] = ...) -> None: ...

class AddLeadsRequest(_message.Message):
    __slots__ = ("list_id", "leads", "language")
    LIST_ID_FIELD_NUMBER: _ClassVar[int]
    LEADS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    list_id: str
    leads: _containers.RepeatedCompositeFieldContainer[NewLead]
    language: str
    def __init__(self, list_id: _Optional[str] = ..., leads: _Optional[_Iterable[_Union[NewLead, _Mapping]]] = ..., language: _Optional[str] = ...) -> None: ...

class AddLeadsResponse(_message.Message):
    __slots__ = ("leads",)
    LEADS_FIELD_NUMBER: _ClassVar[int]
    leads: _containers.RepeatedCompositeFieldContainer[Lead]
    def __init__(self, leads: _Optional[_Iterable[_Union[Lead, _Mapping]]] = ...) -> None: ...

class ListLeadsRequest(_message.Message):
    __slots__ = ("list_id", "seller", "state", "page_size", "page_token")
    LIST_ID_FIELD_NUMBER: _ClassVar[int]
    SELLER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    list_id: str
    seller: str
    state: LeadState
    page_size: int
    page_token: str
    def __init__(self, list_id: _Optional[str] = ..., seller: _Optional[str] = ..., state: _Optional[_Union[LeadState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListLeadsResponse(_message.Message):
    __slots__ = ("leads", "next_page_token")
    LEADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    leads: _containers.RepeatedCompositeFieldContainer[Lead]
    next_page_token: str
    def __init__(self, leads: _Optional[_Iterable[_Union[Lead, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TakeLeadRequest(_message.Message):
    __slots__ = ("lead_id", "seller")
    LEAD_ID_FIELD_NUMBER: _ClassVar[int]
    SELLER_FIELD_NUMBER: _ClassVar[int]
    lead_id: str
    seller: str
    def __init__(self, lead_id: _Optional[str] = ..., seller: _Optional[str] = ...) -> None: ...

class ReturnLeadRequest(_message.Message):
    __slots__ = ("lead_id", "seller", "reason")
    LEAD_ID_FIELD_NUMBER: _ClassVar[int]
    SELLER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lead_id: str
    seller: str
    reason: str
    def __init__(self, lead_id: _Optional[str] = ..., seller: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CompleteLeadRequest(_message.Message):
    __slots__ = ("lead_id", "seller", "outcome", "time_ms", "value", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    LEAD_ID_FIELD_NUMBER: _ClassVar[int]
    SELLER_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    lead_id: str
    seller: str
    outcome: _common_pb2.Stage
    time_ms: int
    value: float
    attributes: _containers.MessageMap[str, _common_pb2.Value]
    def __init__(self, lead_id: _Optional[str] = ..., seller: _Optional[str] = ..., outcome: _Optional[_Union[_common_pb2.Stage, str]] = ..., time_ms: _Optional[int] = ..., value: _Optional[float] = ..., attributes: _Optional[_Mapping[str, _common_pb2.Value]] = ...) -> None: ...

class LeadResponse(_message.Message):
    __slots__ = ("lead", "repeated")
    LEAD_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    lead: Lead
    repeated: bool
    def __init__(self, lead: _Optional[_Union[Lead, _Mapping]] = ..., repeated: _Optional[bool] = ...) -> None: ...
