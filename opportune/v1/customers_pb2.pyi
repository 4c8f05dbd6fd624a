from opportune.v1 import common_pb2 as _common_pb2
from opportune.v1 import decisions_pb2 as _decisions_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimelineKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIMELINE_KIND_UNSPECIFIED: _ClassVar[TimelineKind]
    TIMELINE_KIND_CONTACT: _ClassVar[TimelineKind]
    TIMELINE_KIND_COMPLAINT: _ClassVar[TimelineKind]
    TIMELINE_KIND_NOTE: _ClassVar[TimelineKind]
    TIMELINE_KIND_USE: _ClassVar[TimelineKind]
    TIMELINE_KIND_SATISFACTION: _ClassVar[TimelineKind]
    TIMELINE_KIND_DECISION: _ClassVar[TimelineKind]
    TIMELINE_KIND_OUTCOME: _ClassVar[TimelineKind]
TIMELINE_KIND_UNSPECIFIED: TimelineKind
TIMELINE_KIND_CONTACT: TimelineKind
TIMELINE_KIND_COMPLAINT: TimelineKind
TIMELINE_KIND_NOTE: TimelineKind
TIMELINE_KIND_USE: TimelineKind
TIMELINE_KIND_SATISFACTION: TimelineKind
TIMELINE_KIND_DECISION: TimelineKind
TIMELINE_KIND_OUTCOME: TimelineKind

class ForgetRequest(_message.Message):
    __slots__ = ("request_id", "customer_id", "identities")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    customer_id: str
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    def __init__(self, request_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ("customer_id", "linked_names", "features", "timeline_entries", "events", "dead_letters", "decisions", "outcomes", "decisions_out_of_reach", "lessons", "learner_pending")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    LINKED_NAMES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_OUT_OF_REACH_FIELD_NUMBER: _ClassVar[int]
    LESSONS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_PENDING_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    linked_names: int
    features: int
    timeline_entries: int
    events: int
    dead_letters: int
    decisions: int
    outcomes: int
    decisions_out_of_reach: int
    lessons: int
    learner_pending: bool
    def __init__(self, customer_id: _Optional[str] = ..., linked_names: _Optional[int] = ..., features: _Optional[int] = ..., timeline_entries: _Optional[int] = ..., events: _Optional[int] = ..., dead_letters: _Optional[int] = ..., decisions: _Optional[int] = ..., outcomes: _Optional[int] = ..., decisions_out_of_reach: _Optional[int] = ..., lessons: _Optional[int] = ..., learner_pending: _Optional[bool] = ...) -> None: ...

class GetCustomerRequest(_message.Message):
    __slots__ = ("customer_id", "identities", "time_ms", "page_size", "page_token", "kinds", "channels", "since_ms", "until_ms")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    time_ms: int
    page_size: int
    page_token: str
    kinds: _containers.RepeatedScalarFieldContainer[TimelineKind]
    channels: _containers.RepeatedScalarFieldContainer[str]
    since_ms: int
    until_ms: int
    def __init__(self, customer_id: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ..., time_ms: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., kinds: _Optional[_Iterable[_Union[TimelineKind, str]]] = ..., channels: _Optional[_Iterable[str]] = ..., since_ms: _Optional[int] = ..., until_ms: _Optional[int] = ...) -> None: ...

class TimelineEntry(_message.Message):
    __slots__ = ("time_ms", "kind", "channel", "placement", "text", "type", "attributes", "author", "case_id", "duplicate", "decision_id", "offer_ids", "stage")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    OFFER_IDS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    kind: TimelineKind
    channel: str
    placement: str
    text: str
    type: str
    attributes: _containers.MessageMap[str, _common_pb2.Value]
    author: str
    case_id: str
    duplicate: bool
    decision_id: str
    offer_ids: _containers.RepeatedScalarFieldContainer[str]
    stage: _common_pb2.Stage
    def __init__(self, time_ms: _Optional[int] = ..., kind: _Optional[_Union[TimelineKind, str]] = ..., channel: _Optional[str] = ..., placement: _Optional[str] = ..., text: _Optional[str] = ..., type: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _common_pb2.Value]] = ..., author: _Optional[str] = ..., case_id: _Optional[str] = ..., duplicate: _Optional[bool] = ..., decision_id: _Optional[str] = ..., offer_ids: _Optional[_Iterable[str]] = ..., stage: _Optional[_Union[_common_pb2.Stage, str]] = ...) -> None: ...

class ComplaintCase(_message.Message):
    __slots__ = ("case_id", "type", "text", "complaints", "channels", "first_ms", "last_ms", "open", "closed_ms", "age_ms")
    CASE_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COMPLAINTS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FIRST_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_MS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSED_MS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    case_id: str
    type: str
    text: str
    complaints: int
    channels: _containers.RepeatedScalarFieldContainer[str]
    first_ms: int
    last_ms: int
    open: bool
    closed_ms: int
    age_ms: int
    def __init__(self, case_id: _Optional[str] = ..., type: _Optional[str] = ..., text: _Optional[str] = ..., complaints: _Optional[int] = ..., channels: _Optional[_Iterable[str]] = ..., first_ms: _Optional[int] = ..., last_ms: _Optional[int] = ..., open: _Optional[bool] = ..., closed_ms: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "value", "unit", "defaulted", "latest_event_ms", "age_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    DEFAULTED_FIELD_NUMBER: _ClassVar[int]
    LATEST_EVENT_MS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: _common_pb2.Value
    unit: str
    defaulted: bool
    latest_event_ms: int
    age_ms: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ..., unit: _Optional[str] = ..., defaulted: _Optional[bool] = ..., latest_event_ms: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Customer(_message.Message):
    __slots__ = ("customer_id", "state", "features", "offers", "events", "duplicates", "late", "bytes", "profile", "identities", "segments", "timeline", "next_page_token", "cases", "timeline_floor_ms", "contacts", "caps", "contact_pressure", "contact_surcharge", "cool_offs")
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FLOOR_MS_FIELD_NUMBER: _ClassVar[int]
    CONTACTS_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    CONTACT_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    CONTACT_SURCHARGE_FIELD_NUMBER: _ClassVar[int]
    COOL_OFFS_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    state: _decisions_pb2.StateFreshness
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    offers: _containers.RepeatedCompositeFieldContainer[_decisions_pb2.OpenOffer]
    events: int
    duplicates: int
    late: int
    bytes: int
    profile: _containers.RepeatedCompositeFieldContainer[Feature]
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    segments: _containers.RepeatedScalarFieldContainer[str]
    timeline: _containers.RepeatedCompositeFieldContainer[TimelineEntry]
    next_page_token: str
    cases: _containers.RepeatedCompositeFieldContainer[ComplaintCase]
    timeline_floor_ms: int
    contacts: _containers.RepeatedCompositeFieldContainer[ContactCount]
    caps: _containers.RepeatedCompositeFieldContainer[CapUse]
    contact_pressure: float
    contact_surcharge: float
    cool_offs: _containers.RepeatedCompositeFieldContainer[CoolOffInForce]
    def __init__(self, customer_id: _Optional[str] = ..., state: _Optional[_Union[_decisions_pb2.StateFreshness, _Mapping]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., offers: _Optional[_Iterable[_Union[_decisions_pb2.OpenOffer, _Mapping]]] = ..., events: _Optional[int] = ..., duplicates: _Optional[int] = ..., late: _Optional[int] = ..., bytes: _Optional[int] = ..., profile: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ..., segments: _Optional[_Iterable[str]] = ..., timeline: _Optional[_Iterable[_Union[TimelineEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., cases: _Optional[_Iterable[_Union[ComplaintCase, _Mapping]]] = ..., timeline_floor_ms: _Optional[int] = ..., contacts: _Optional[_Iterable[_Union[ContactCount, _Mapping]]] = ..., caps: _Optional[_Iterable[_Union[CapUse, _Mapping]]] = ..., contact_pressure: _Optional[float] = ..., contact_surcharge: _Optional[float] = ..., cool_offs: _Optional[_Iterable[_Union[CoolOffInForce, _Mapping]]] = ...) -> None: ...

class ContactCount(_message.Message):
    __slots__ = ("days", "channel", "contacts", "offers")
    DAYS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    CONTACTS_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    days: int
    channel: str
    contacts: int
    offers: int
    def __init__(self, days: _Optional[int] = ..., channel: _Optional[str] = ..., contacts: _Optional[int] = ..., offers: _Optional[int] = ...) -> None: ...

class CapUse(_message.Message):
    __slots__ = ("name", "of", "used", "most", "free_again_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    FREE_AGAIN_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    of: str
    used: int
    most: int
    free_again_ms: int
    def __init__(self, name: _Optional[str] = ..., of: _Optional[str] = ..., used: _Optional[int] = ..., most: _Optional[int] = ..., free_again_ms: _Optional[int] = ...) -> None: ...

class CoolOffInForce(_message.Message):
    __slots__ = ("name", "of", "until_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    of: str
    until_ms: int
    def __init__(self, name: _Optional[str] = ..., of: _Optional[str] = ..., until_ms: _Optional[int] = ...) -> None: ...
