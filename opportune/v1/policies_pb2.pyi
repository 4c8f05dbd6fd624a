from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ValidateRequest(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    def __init__(self, text: _Optional[bytes] = ...) -> None: ...

class ConfigCount(_message.Message):
    __slots__ = ("what", "count", "which")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    WHICH_FIELD_NUMBER: _ClassVar[int]
    what: str
    count: int
    which: str
    def __init__(self, what: _Optional[str] = ..., count: _Optional[int] = ..., which: _Optional[str] = ...) -> None: ...

class ValidateResponse(_message.Message):
    __slots__ = ("problems", "version", "contents")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedScalarFieldContainer[str]
    version: str
    contents: _containers.RepeatedCompositeFieldContainer[ConfigCount]
    def __init__(self, problems: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., contents: _Optional[_Iterable[_Union[ConfigCount, _Mapping]]] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("text", "by", "note", "dry_run")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    by: str
    note: str
    dry_run: bool
    def __init__(self, text: _Optional[bytes] = ..., by: _Optional[str] = ..., note: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("version", "by", "note")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    version: str
    by: str
    note: str
    def __init__(self, version: _Optional[str] = ..., by: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("version", "by", "note")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    version: str
    by: str
    note: str
    def __init__(self, version: _Optional[str] = ..., by: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class ChangeResponse(_message.Message):
    __slots__ = ("version", "state", "before", "approvals_missing")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_MISSING_FIELD_NUMBER: _ClassVar[int]
    version: str
    state: str
    before: str
    approvals_missing: int
    def __init__(self, version: _Optional[str] = ..., state: _Optional[str] = ..., before: _Optional[str] = ..., approvals_missing: _Optional[int] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ConfigVersion(_message.Message):
    __slots__ = ("version", "name", "state", "by", "note", "proposed_ms", "base", "approved_by", "active_ms", "approvals")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_MS_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_MS_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    version: str
    name: str
    state: str
    by: str
    note: str
    proposed_ms: int
    base: str
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    active_ms: int
    approvals: int
    def __init__(self, version: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., by: _Optional[str] = ..., note: _Optional[str] = ..., proposed_ms: _Optional[int] = ..., base: _Optional[str] = ..., approved_by: _Optional[_Iterable[str]] = ..., active_ms: _Optional[int] = ..., approvals: _Optional[int] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions", "active")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ConfigVersion]
    active: str
    def __init__(self, versions: _Optional[_Iterable[_Union[ConfigVersion, _Mapping]]] = ..., active: _Optional[str] = ...) -> None: ...
