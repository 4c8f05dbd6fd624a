from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DefaultsRequest(_message.Message):
    __slots__ = ("channel", "placement", "language")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    channel: str
    placement: str
    language: str
    def __init__(self, channel: _Optional[str] = ..., placement: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...

class DefaultOffer(_message.Message):
    __slots__ = ("offer_id", "rank", "kind", "category", "treatment", "from_ms", "until_ms")
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    offer_id: str
    rank: int
    kind: str
    category: str
    treatment: str
    from_ms: int
    until_ms: int
    def __init__(self, offer_id: _Optional[str] = ..., rank: _Optional[int] = ..., kind: _Optional[str] = ..., category: _Optional[str] = ..., treatment: _Optional[str] = ..., from_ms: _Optional[int] = ..., until_ms: _Optional[int] = ...) -> None: ...

class DefaultsResponse(_message.Message):
    __slots__ = ("document", "version", "issued_ms", "valid_until_ms", "offers", "key_id")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ISSUED_MS_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    document: str
    version: str
    issued_ms: int
    valid_until_ms: int
    offers: _containers.RepeatedCompositeFieldContainer[DefaultOffer]
    key_id: str
    def __init__(self, document: _Optional[str] = ..., version: _Optional[str] = ..., issued_ms: _Optional[int] = ..., valid_until_ms: _Optional[int] = ..., offers: _Optional[_Iterable[_Union[DefaultOffer, _Mapping]]] = ..., key_id: _Optional[str] = ...) -> None: ...

class DefaultKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DefaultKey(_message.Message):
    __slots__ = ("key_id", "pem", "current")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PEM_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    pem: str
    current: bool
    def __init__(self, key_id: _Optional[str] = ..., pem: _Optional[str] = ..., current: _Optional[bool] = ...) -> None: ...

class DefaultKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[DefaultKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[DefaultKey, _Mapping]]] = ...) -> None: ...
