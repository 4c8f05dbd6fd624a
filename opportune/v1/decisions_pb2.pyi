from opportune.v1 import common_pb2 as _common_pb2
from opportune.v1 import defaults_pb2 as _defaults_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DegradedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADED_REASON_UNSPECIFIED: _ClassVar[DegradedReason]
    DEGRADED_REASON_STATE_STORE_UNAVAILABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_COMMIT_FAILED: _ClassVar[DegradedReason]
    DEGRADED_REASON_STATE_UNREADABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_POLICY_UNAVAILABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_DEADLINE_NEAR: _ClassVar[DegradedReason]
DEGRADED_REASON_UNSPECIFIED: DegradedReason
DEGRADED_REASON_STATE_STORE_UNAVAILABLE: DegradedReason
DEGRADED_REASON_COMMIT_FAILED: DegradedReason
DEGRADED_REASON_STATE_UNREADABLE: DegradedReason
DEGRADED_REASON_POLICY_UNAVAILABLE: DegradedReason
DEGRADED_REASON_DEADLINE_NEAR: DegradedReason

class DecideRequest(_message.Message):
    __slots__ = ("request_id", "customer_id", "identities", "channel", "placement", "context", "limit", "time_ms", "language", "purposes", "resume")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    customer_id: str
    identities: _containers.RepeatedCompositeFieldContainer[_common_pb2.Identity]
    channel: str
    placement: str
    context: _containers.MessageMap[str, _common_pb2.Value]
    limit: int
    time_ms: int
    language: str
    purposes: _containers.RepeatedScalarFieldContainer[str]
    resume: Resume
    def __init__(self, request_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[_common_pb2.Identity, _Mapping]]] = ..., channel: _Optional[str] = ..., placement: _Optional[str] = ..., context: _Optional[_Mapping[str, _common_pb2.Value]] = ..., limit: _Optional[int] = ..., time_ms: _Optional[int] = ..., language: _Optional[str] = ..., purposes: _Optional[_Iterable[str]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("decision_id", "offer_id")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    offer_id: str
    def __init__(self, decision_id: _Optional[str] = ..., offer_id: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "text", "weight")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    weight: float
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class RankedOffer(_message.Message):
    __slots__ = ("offer_id", "rank", "kind", "category", "treatment", "propensity", "score", "acceptance_probability", "value", "contact_cost", "reasons", "expires_ms", "parameters", "price_held_until_ms", "begun_decision_id", "asks", "bundles", "reserved_until_ms")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTACT_COST_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PRICE_HELD_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    BEGUN_DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    offer_id: str
    rank: int
    kind: _common_pb2.OfferKind
    category: str
    treatment: str
    propensity: float
    score: float
    acceptance_probability: float
    value: float
    contact_cost: float
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    expires_ms: int
    parameters: _containers.MessageMap[str, _common_pb2.Value]
    price_held_until_ms: int
    begun_decision_id: str
    asks: AskedFact
    bundles: _containers.RepeatedScalarFieldContainer[str]
    reserved_until_ms: int
    def __init__(self, offer_id: _Optional[str] = ..., rank: _Optional[int] = ..., kind: _Optional[_Union[_common_pb2.OfferKind, str]] = ..., category: _Optional[str] = ..., treatment: _Optional[str] = ..., propensity: _Optional[float] = ..., score: _Optional[float] = ..., acceptance_probability: _Optional[float] = ..., value: _Optional[float] = ..., contact_cost: _Optional[float] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., expires_ms: _Optional[int] = ..., parameters: _Optional[_Mapping[str, _common_pb2.Value]] = ..., price_held_until_ms: _Optional[int] = ..., begun_decision_id: _Optional[str] = ..., asks: _Optional[_Union[AskedFact, _Mapping]] = ..., bundles: _Optional[_Iterable[str]] = ..., reserved_until_ms: _Optional[int] = ...) -> None: ...

class AskedFact(_message.Message):
    __slots__ = ("fact", "answers")
    FACT_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    fact: str
    answers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, fact: _Optional[str] = ..., answers: _Optional[_Iterable[str]] = ...) -> None: ...

class StateFreshness(_message.Message):
    __slots__ = ("known", "watermark", "latest_event_ms", "age_ms")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LATEST_EVENT_MS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    known: bool
    watermark: str
    latest_event_ms: int
    age_ms: int
    def __init__(self, known: _Optional[bool] = ..., watermark: _Optional[str] = ..., latest_event_ms: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class OpenOffer(_message.Message):
    __slots__ = ("decision_id", "offer_id", "stage", "served_ms", "expires_ms", "parameters", "price_held_until_ms", "channel", "treatment", "begun_decision_id")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SERVED_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    PRICE_HELD_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    BEGUN_DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    offer_id: str
    stage: _common_pb2.Stage
    served_ms: int
    expires_ms: int
    parameters: _containers.MessageMap[str, _common_pb2.Value]
    price_held_until_ms: int
    channel: str
    treatment: str
    begun_decision_id: str
    def __init__(self, decision_id: _Optional[str] = ..., offer_id: _Optional[str] = ..., stage: _Optional[_Union[_common_pb2.Stage, str]] = ..., served_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., parameters: _Optional[_Mapping[str, _common_pb2.Value]] = ..., price_held_until_ms: _Optional[int] = ..., channel: _Optional[str] = ..., treatment: _Optional[str] = ..., begun_decision_id: _Optional[str] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("decision_id", "offers", "nothing_reason", "state", "degraded", "customer_id", "policy_version", "config_version", "time_ms", "repeated", "open_offers", "arms", "preview")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    NOTHING_REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    OPEN_OFFERS_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    offers: _containers.RepeatedCompositeFieldContainer[RankedOffer]
    nothing_reason: Reason
    state: StateFreshness
    degraded: DegradedReason
    customer_id: str
    policy_version: int
    config_version: str
    time_ms: int
    repeated: bool
    open_offers: _containers.RepeatedCompositeFieldContainer[OpenOffer]
    arms: _containers.RepeatedScalarFieldContainer[str]
    preview: bool
    def __init__(self, decision_id: _Optional[str] = ..., offers: _Optional[_Iterable[_Union[RankedOffer, _Mapping]]] = ..., nothing_reason: _Optional[_Union[Reason, _Mapping]] = ..., state: _Optional[_Union[StateFreshness, _Mapping]] = ..., degraded: _Optional[_Union[DegradedReason, str]] = ..., customer_id: _Optional[str] = ..., policy_version: _Optional[int] = ..., config_version: _Optional[str] = ..., time_ms: _Optional[int] = ..., repeated: _Optional[bool] = ..., open_offers: _Optional[_Iterable[_Union[OpenOffer, _Mapping]]] = ..., arms: _Optional[_Iterable[str]] = ..., preview: _Optional[bool] = ...) -> None: ...

class BatchCustomer(_message.Message):
    __slots__ = ("customer_id", "context")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    context: _containers.MessageMap[str, _common_pb2.Value]
    def __init__(self, customer_id: _Optional[str] = ..., context: _Optional[_Mapping[str, _common_pb2.Value]] = ...) -> None: ...

class DecideManyRequest(_message.Message):
    __slots__ = ("batch_id", "channel", "placement", "context", "limit", "time_ms", "language", "purposes", "preview", "customers")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    CUSTOMERS_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    channel: str
    placement: str
    context: _containers.MessageMap[str, _common_pb2.Value]
    limit: int
    time_ms: int
    language: str
    purposes: _containers.RepeatedScalarFieldContainer[str]
    preview: bool
    customers: _containers.RepeatedCompositeFieldContainer[BatchCustomer]
    def __init__(self, batch_id: _Optional[str] = ..., channel: _Optional[str] = ..., placement: _Optional[str] = ..., context: _Optional[_Mapping[str, _common_pb2.Value]] = ..., limit: _Optional[int] = ..., time_ms: _Optional[int] = ..., language: _Optional[str] = ..., purposes: _Optional[_Iterable[str]] = ..., preview: _Optional[bool] = ..., customers: _Optional[_Iterable[_Union[BatchCustomer, _Mapping]]] = ...) -> None: ...

class BatchError(_message.Message):
    __slots__ = ("status", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    message: str
    def __init__(self, status: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class DecideManyResponse(_message.Message):
    __slots__ = ("index", "customer_id", "answer", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    customer_id: str
    answer: DecideResponse
    error: BatchError
    def __init__(self, index: _Optional[int] = ..., customer_id: _Optional[str] = ..., answer: _Optional[_Union[DecideResponse, _Mapping]] = ..., error: _Optional[_Union[BatchError, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("decision_id", "language", "customer_id")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    language: str
    customer_id: str
    def __init__(self, decision_id: _Optional[str] = ..., language: _Optional[str] = ..., customer_id: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("input", "value", "probability", "worth")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    WORTH_FIELD_NUMBER: _ClassVar[int]
    input: str
    value: str
    probability: float
    worth: float
    def __init__(self, input: _Optional[str] = ..., value: _Optional[str] = ..., probability: _Optional[float] = ..., worth: _Optional[float] = ...) -> None: ...

class Factors(_message.Message):
    __slots__ = ("estimate", "context_weight", "value", "lever", "contact_cost", "worth", "weight", "risk_customer", "risk_company", "information", "factors", "surcharge", "shadow_price")
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LEVER_FIELD_NUMBER: _ClassVar[int]
    CONTACT_COST_FIELD_NUMBER: _ClassVar[int]
    WORTH_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RISK_CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    RISK_COMPANY_FIELD_NUMBER: _ClassVar[int]
    INFORMATION_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    SURCHARGE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_PRICE_FIELD_NUMBER: _ClassVar[int]
    estimate: float
    context_weight: float
    value: float
    lever: float
    contact_cost: float
    worth: float
    weight: float
    risk_customer: float
    risk_company: float
    information: float
    factors: _containers.RepeatedCompositeFieldContainer[Factor]
    surcharge: float
    shadow_price: float
    def __init__(self, estimate: _Optional[float] = ..., context_weight: _Optional[float] = ..., value: _Optional[float] = ..., lever: _Optional[float] = ..., contact_cost: _Optional[float] = ..., worth: _Optional[float] = ..., weight: _Optional[float] = ..., risk_customer: _Optional[float] = ..., risk_company: _Optional[float] = ..., information: _Optional[float] = ..., factors: _Optional[_Iterable[_Union[Factor, _Mapping]]] = ..., surcharge: _Optional[float] = ..., shadow_price: _Optional[float] = ...) -> None: ...

class Factor(_message.Message):
    __slots__ = ("source", "name", "rule", "amount")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    source: str
    name: str
    rule: str
    amount: float
    def __init__(self, source: _Optional[str] = ..., name: _Optional[str] = ..., rule: _Optional[str] = ..., amount: _Optional[float] = ...) -> None: ...

class Unmet(_message.Message):
    __slots__ = ("layer", "name", "expression", "failed", "text")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    name: str
    expression: str
    failed: bool
    text: str
    def __init__(self, layer: _Optional[str] = ..., name: _Optional[str] = ..., expression: _Optional[str] = ..., failed: _Optional[bool] = ..., text: _Optional[str] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("offer_id", "eligible", "unmet_rules", "rank", "propensity", "score", "acceptance_probability", "acceptance_probability_sd", "base_rate", "contributions", "factors", "reasons", "text", "unmet", "held_by", "free_again_ms")
    OFFER_ID_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    UNMET_RULES_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_PROBABILITY_SD_FIELD_NUMBER: _ClassVar[int]
    BASE_RATE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    UNMET_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    FREE_AGAIN_MS_FIELD_NUMBER: _ClassVar[int]
    offer_id: str
    eligible: bool
    unmet_rules: _containers.RepeatedScalarFieldContainer[str]
    rank: int
    propensity: float
    score: float
    acceptance_probability: float
    acceptance_probability_sd: float
    base_rate: float
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    factors: Factors
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    text: str
    unmet: _containers.RepeatedCompositeFieldContainer[Unmet]
    held_by: _containers.RepeatedScalarFieldContainer[str]
    free_again_ms: int
    def __init__(self, offer_id: _Optional[str] = ..., eligible: _Optional[bool] = ..., unmet_rules: _Optional[_Iterable[str]] = ..., rank: _Optional[int] = ..., propensity: _Optional[float] = ..., score: _Optional[float] = ..., acceptance_probability: _Optional[float] = ..., acceptance_probability_sd: _Optional[float] = ..., base_rate: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., factors: _Optional[_Union[Factors, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., text: _Optional[str] = ..., unmet: _Optional[_Iterable[_Union[Unmet, _Mapping]]] = ..., held_by: _Optional[_Iterable[str]] = ..., free_again_ms: _Optional[int] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("name", "steps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    steps: int
    def __init__(self, name: _Optional[str] = ..., steps: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("decision_id", "customer_id", "channel", "placement", "time_ms", "context", "candidates", "inputs", "policy_version", "config_version", "seed", "state", "nothing_propensity", "degraded", "request_id", "summary", "explained_by_policy_version", "exact", "caveat", "brief", "language", "arms")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Value, _Mapping]] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NOTHING_PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_BY_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    CAVEAT_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    customer_id: str
    channel: str
    placement: str
    time_ms: int
    context: _containers.MessageMap[str, _common_pb2.Value]
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    policy_version: int
    config_version: str
    seed: int
    state: StateFreshness
    nothing_propensity: float
    degraded: DegradedReason
    request_id: str
    summary: str
    explained_by_policy_version: int
    exact: bool
    caveat: str
    brief: str
    language: str
    arms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision_id: _Optional[str] = ..., customer_id: _Optional[str] = ..., channel: _Optional[str] = ..., placement: _Optional[str] = ..., time_ms: _Optional[int] = ..., context: _Optional[_Mapping[str, _common_pb2.Value]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., policy_version: _Optional[int] = ..., config_version: _Optional[str] = ..., seed: _Optional[int] = ..., state: _Optional[_Union[StateFreshness, _Mapping]] = ..., nothing_propensity: _Optional[float] = ..., degraded: _Optional[_Union[DegradedReason, str]] = ..., request_id: _Optional[str] = ..., summary: _Optional[str] = ..., explained_by_policy_version: _Optional[int] = ..., exact: _Optional[bool] = ..., caveat: _Optional[str] = ..., brief: _Optional[str] = ..., language: _Optional[str] = ..., arms: _Optional[_Iterable[str]] = ...) -> None: ...
