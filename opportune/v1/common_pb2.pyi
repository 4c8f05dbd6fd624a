from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_SERVED: _ClassVar[Stage]
    STAGE_PRESENTED: _ClassVar[Stage]
    STAGE_ACCEPTED: _ClassVar[Stage]
    STAGE_DECLINED: _ClassVar[Stage]
    STAGE_IGNORED: _ClassVar[Stage]
    STAGE_NOT_PRESENTED: _ClassVar[Stage]
    STAGE_FULFILLED: _ClassVar[Stage]
    STAGE_CANCELLED: _ClassVar[Stage]
    STAGE_EXPIRED: _ClassVar[Stage]
    STAGE_WITHDRAWN: _ClassVar[Stage]
    STAGE_CLICKED: _ClassVar[Stage]

class OfferKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OFFER_KIND_UNSPECIFIED: _ClassVar[OfferKind]
    OFFER_KIND_SALE: _ClassVar[OfferKind]
    OFFER_KIND_SERVICE: _ClassVar[OfferKind]
    OFFER_KIND_RETENTION: _ClassVar[OfferKind]
    OFFER_KIND_QUESTION: _ClassVar[OfferKind]
    OFFER_KIND_SILENCE: _ClassVar[OfferKind]
STAGE_UNSPECIFIED: Stage
STAGE_SERVED: Stage
STAGE_PRESENTED: Stage
STAGE_ACCEPTED: Stage
STAGE_DECLINED: Stage
STAGE_IGNORED: Stage
STAGE_NOT_PRESENTED: Stage
STAGE_FULFILLED: Stage
STAGE_CANCELLED: Stage
STAGE_EXPIRED: Stage
STAGE_WITHDRAWN: Stage
STAGE_CLICKED: Stage
OFFER_KIND_UNSPECIFIED: OfferKind
OFFER_KIND_SALE: OfferKind
OFFER_KIND_SERVICE: OfferKind
OFFER_KIND_RETENTION: OfferKind
OFFER_KIND_QUESTION: OfferKind
OFFER_KIND_SILENCE: OfferKind

class Value(_message.Message):
    __slots__ = ("number", "text", "flag")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    number: float
    text: str
    flag: bool
    def __init__(self, number: _Optional[float] = ..., text: _Optional[str] = ..., flag: _Optional[bool] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("kind", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: str
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
