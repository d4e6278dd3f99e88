from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    FOUND: _ClassVar[State]
    ABSENT: _ClassVar[State]
    FAILED: _ClassVar[State]
    OVERLOADED: _ClassVar[State]
    BUSY: _ClassVar[State]
    OTHER_RING: _ClassVar[State]
    UNKNOWN_GROUP: _ClassVar[State]
    TOO_BIG: _ClassVar[State]
    NOT_KEPT: _ClassVar[State]
STATE_UNSPECIFIED: State
FOUND: State
ABSENT: State
FAILED: State
OVERLOADED: State
BUSY: State
OTHER_RING: State
UNKNOWN_GROUP: State
TOO_BIG: State
NOT_KEPT: State

class RingId(_message.Message):
    __slots__ = ("epoch", "fingerprint")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    fingerprint: int
    def __init__(self, epoch: _Optional[int] = ..., fingerprint: _Optional[int] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("ring", "forwarded", "timeout_ms", "group", "first", "keys", "kept_only")
    RING_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    KEPT_ONLY_FIELD_NUMBER: _ClassVar[int]
    ring: RingId
    forwarded: bool
    timeout_ms: int
    group: str
    first: int
    keys: _containers.RepeatedScalarFieldContainer[str]
    kept_only: bool
    def __init__(self, ring: _Optional[_Union[RingId, _Mapping]] = ..., forwarded: _Optional[bool] = ..., timeout_ms: _Optional[int] = ..., group: _Optional[str] = ..., first: _Optional[int] = ..., keys: _Optional[_Iterable[str]] = ..., kept_only: _Optional[bool] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("ring", "numbers", "states", "values", "fresh_ms", "heard")
    RING_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FRESH_MS_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    ring: RingId
    numbers: _containers.RepeatedScalarFieldContainer[int]
    states: bytes
    values: _containers.RepeatedScalarFieldContainer[bytes]
    fresh_ms: _containers.RepeatedScalarFieldContainer[int]
    heard: Heard
    def __init__(self, ring: _Optional[_Union[RingId, _Mapping]] = ..., numbers: _Optional[_Iterable[int]] = ..., states: _Optional[bytes] = ..., values: _Optional[_Iterable[bytes]] = ..., fresh_ms: _Optional[_Iterable[int]] = ..., heard: _Optional[_Union[Heard, _Mapping]] = ...) -> None: ...

class Heard(_message.Message):
    __slots__ = ("changes", "rebuilds", "stream")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REBUILDS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    changes: int
    rebuilds: int
    stream: int
    def __init__(self, changes: _Optional[int] = ..., rebuilds: _Optional[int] = ..., stream: _Optional[int] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("group", "keys", "all")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    group: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    def __init__(self, group: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ..., all: _Optional[bool] = ...) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ("ring",)
    RING_FIELD_NUMBER: _ClassVar[int]
    ring: RingId
    def __init__(self, ring: _Optional[_Union[RingId, _Mapping]] = ...) -> None: ...

class KeysRequest(_message.Message):
    __slots__ = ("ring", "name", "address", "weight", "group", "limit")
    RING_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ring: RingId
    name: str
    address: str
    weight: int
    group: str
    limit: int
    def __init__(self, ring: _Optional[_Union[RingId, _Mapping]] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., weight: _Optional[int] = ..., group: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class KeysReply(_message.Message):
    __slots__ = ("keys", "ring")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    ring: RingId
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., ring: _Optional[_Union[RingId, _Mapping]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("name", "ring", "nodes", "bytes_used", "bytes_max", "entries", "counts")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    BYTES_USED_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    ring: RingId
    nodes: _containers.RepeatedScalarFieldContainer[str]
    bytes_used: int
    bytes_max: int
    entries: int
    counts: _containers.ScalarMap[str, int]
    def __init__(self, name: _Optional[str] = ..., ring: _Optional[_Union[RingId, _Mapping]] = ..., nodes: _Optional[_Iterable[str]] = ..., bytes_used: _Optional[int] = ..., bytes_max: _Optional[int] = ..., entries: _Optional[int] = ..., counts: _Optional[_Mapping[str, int]] = ...) -> None: ...
