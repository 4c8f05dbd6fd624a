"""Requests that are wrong, each with the status and the words that the refusal must have."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from engine.gateway_timeline import token_of
from engine.limits import TIME_MS_MAX
from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2, feedback_pb2
from tests.small_engine import DAY_MS, START_MS, value_of

Value, Identity = common_pb2.Value, common_pb2.Identity
DECIDE, EXPLAIN, REPORT = "Decisions/Decide", "Decisions/Explain", "Feedback/Report"
PUBLISH, GET = "Events/Publish", "Customers/Get"
INVALID, MISSING, NOT_ALLOWED = "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"


@dataclass(frozen=True)
class Made:
    """What the engine holds before the bad request: a decision with "card", which was declined, and "helpline"."""

    decision_id: str


@dataclass(frozen=True)
class Bad:
    """One bad request."""

    name: str
    method: str
    make: Callable[[Made], Message]
    status: str
    told: tuple[str, ...]


def decide(name: str, told: tuple[str, ...], **fields: Any) -> Bad:
    given = {"customer_id": "ann", "channel": "branch"} | fields
    return Bad(f"decide {name}", DECIDE, lambda _: decisions_pb2.DecideRequest(**given), INVALID, told)


def fact(name: str, told: tuple[str, ...], key: str, value: Value) -> Bad:
    return decide(f"context {name}", told, context={key: value})


def report(name: str, told: tuple[str, ...], status: str = INVALID, **fields: Any) -> Bad:
    def make(made: Made) -> Message:
        given = {"decision_id": made.decision_id, "outcome_id": "o1", "offer_id": "helpline", "stage": "STAGE_ACCEPTED"}
        return feedback_pb2.ReportRequest(**(given | fields))  # type: ignore[arg-type]

    return Bad(f"report {name}", REPORT, make, status, told)


def explain(name: str, told: tuple[str, ...], decision_id: str, status: str = MISSING) -> Bad:
    request = decisions_pb2.ExplainRequest(decision_id=decision_id)
    return Bad(f"explain {name}", EXPLAIN, lambda _: request, status, told)


def get(name: str, told: tuple[str, ...], **fields: Any) -> Bad:
    return Bad(f"get {name}", GET, lambda _: customers_pb2.GetCustomerRequest(**fields), INVALID, told)


def token(customer: str = "ann") -> str:
    """A page token as an answer has it."""
    return token_of(customers_pb2.GetCustomerRequest(customer_id=customer), customer, (START_MS, 7))


LONG = "x" * 65
FAR_MS, OLD_MS = START_MS + 301_000, START_MS - 31 * DAY_MS
NO_TIME = "expected milliseconds since 1970-01-01 UTC"
ANOTHER = ("page_token: of another request", "expected the same customer, kinds, channels, since_ms and until_ms")
KINDS = "expected one of TIMELINE_KIND_CONTACT, TIMELINE_KIND_COMPLAINT"
TRACES = [Identity(kind="cookie", value=f"c{n}") for n in range(9)]

BAD: tuple[Bad, ...] = (
    decide("without a customer", ("customer_id", "empty", "at least one entry of identities"), customer_id=""),
    decide("with a long customer", ("customer_id", "65 bytes", "expected 1 to 64"), customer_id=LONG),
    decide("with a long customer in bytes", ("customer_id", "66 bytes"), customer_id="é" * 33),
    decide("with a line break", ("customer_id", "U+000A", "expected printable"), customer_id="a\nb"),
    decide("with a NUL", ("customer_id", "U+0000"), customer_id="a\0b"),
    decide("with a right-to-left override", ("customer_id", "U+202E"), customer_id="a\u202eb"),
    decide("with nine traces", ("identities", "9 entries", "at most 8"), customer_id="", identities=TRACES),
    decide("with an odd trace", ("identities[0].kind", "empty"), customer_id="", identities=[Identity(value="x")]),
    decide(
        "with a long trace",
        ("identities[0].value", "129 bytes", "expected 1 to 128"),
        customer_id="",
        identities=[Identity(kind="card", value="9" * 129)],
    ),
    decide("without a channel", ("channel", "empty", "expected a channel"), channel=""),
    decide("in no channel", ("channel", "'moon'", "there are branch, web"), channel="moon"),
    decide("in a very long channel", ("channel", "10002 characters"), channel="m" * 10_000),
    decide("at no placement", ("placement", "'hero'", "there are desk"), placement="hero"),
    decide("with a long request id", ("request_id", "65 bytes"), request_id=LONG),
    decide("with a tab in the request id", ("request_id", "U+0009"), request_id="a\tb"),
    decide("for 31 offers", ("limit", "31", "expected 1 to 30"), limit=31),
    decide("for four billion offers", ("limit", "4294967295", "expected 1 to 30"), limit=2**32 - 1),
    decide("in a long language", ("language", "17 bytes", "at most 16"), language="e" * 17),
    decide("with 17 purposes", ("purposes", "17 entries", "at most 16"), purposes=["p"] * 17),
    decide("too early", ("time_ms", "behind the server's clock", "are allowed"), time_ms=OLD_MS),
    decide("too late", ("time_ms", "301000 ms ahead", "at most 300000 ms"), time_ms=FAR_MS),
    decide("before 1970", ("time_ms", "-1 is not a time", NO_TIME), time_ms=-1),
    decide("at the end of time", ("time_ms", NO_TIME), time_ms=2**63 - 1),
    decide("after the year 9999", ("time_ms", NO_TIME), time_ms=TIME_MS_MAX + 1),
    fact("of no name", ("context['weather']", "there are intent, minutes, vip"), "weather", value_of("rain")),
    fact("of an empty name", ("context['']", "there are intent, minutes, vip"), "", value_of("rain")),
    fact("without a value", ("context[minutes]", "expected number, text or flag"), "minutes", Value()),
    fact("NaN", ("context[minutes]", "nan", "expected a finite number"), "minutes", value_of(math.nan)),
    fact("infinity", ("context[minutes]", "inf", "expected a finite number"), "minutes", value_of(math.inf)),
    fact("out of range", ("context[minutes]", "601", "expected 0.0 to 600.0"), "minutes", value_of(601.0)),
    fact("a text for a number", ("context[minutes]", "'7' is a text", "expected a number"), "minutes", value_of("7")),
    fact("a flag for a number", ("context[minutes]", "is a flag", "expected a number"), "minutes", value_of(True)),
    fact("a number for a text", ("context[intent]", "is a number", "expected a text"), "intent", value_of(1.0)),
    fact("a text for a flag", ("context[vip]", "'true' is a text", "expected a flag"), "vip", value_of("true")),
    fact("of 257 bytes", ("context[intent]", "257 bytes", "at most 256"), "intent", value_of("x" * 257)),
    decide(
        "with 65 facts", ("context", "65 entries", "at most 64"), context={f"f{n}": value_of(1.0) for n in range(65)}
    ),
    report("without an outcome id", ("outcome_id", "empty"), outcome_id=""),
    report("with a long outcome id", ("outcome_id", "65 bytes"), outcome_id=LONG),
    report("without a decision", ("decision_id", "empty"), decision_id=""),
    report("of a long decision", ("decision_id", "65 bytes"), decision_id=LONG),
    report("of no decision id", ("decision_id", "no decision 'nonsense'"), MISSING, decision_id="nonsense"),
    report("of an unknown decision", ("decision_id", "or its record was retired"), MISSING, decision_id="0-1-0"),
    report("of another partition", ("decision_id", "no decision 'ff-1-0'"), MISSING, decision_id="ff-1-0"),
    report("without an offer", ("offer_id", "empty"), offer_id=""),
    report("of an offer not served", ("offer_id", "'loan' is not in the answer", "had"), MISSING, offer_id="loan"),
    report("of no offer", ("offer_id", "'moon' is not in the answer"), MISSING, offer_id="moon"),
    report("without a stage", ("stage: missing", "of STAGE_PRESENTED, STAGE_ACCEPTED"), stage="STAGE_UNSPECIFIED"),
    report("of an unknown stage", ("stage: 99", "expected one of STAGE_PRESENTED"), stage=99),
    report("of a negative stage", ("stage: -5", "expected one of STAGE_PRESENTED"), stage=-5),
    report("of the engine's stage", ("stage: STAGE_EXPIRED is the engine's own",), stage="STAGE_EXPIRED"),
    report("of a move too far", ("is SERVED", "expected", "got FULFILLED"), NOT_ALLOWED, stage="STAGE_FULFILLED"),
    report("after a no", ("is DECLINED", "expected nothing more"), NOT_ALLOWED, offer_id="card"),
    report("worth NaN", ("value: nan", "expected a finite number"), value=math.nan),
    report("worth too much", ("value: 10000000000000.0", "up to 1e12"), value=1e13),
    report("with no objective", ("rewards['joy']", "no such objective", "there are none"), rewards={"joy": 1.0}),
    report("correcting itself", ("corrects", "the outcome itself"), corrects="o1"),
    report("correcting what is long", ("corrects", "65 bytes"), corrects=LONG),
    report("correcting nothing", ("corrects: 'o0'", "no outcome of that id"), NOT_ALLOWED, corrects="o0"),
    report("in no channel", ("channel", "'moon'", "there are branch, web"), channel="moon"),
    report("before the decision", ("time_ms", "before the decision"), time_ms=START_MS - 301_000),
    report("from the future", ("time_ms", "ahead of the server's clock"), time_ms=FAR_MS),
    report("with NaN", ("attributes['why']", "expected a finite number"), attributes={"why": value_of(math.nan)}),
    report("with a long fact", ("attributes", "65 bytes"), attributes={LONG: value_of(1.0)}),
    report("with 65 facts", ("attributes", "65 entries"), attributes={f"f{n}": value_of(1.0) for n in range(65)}),
    explain("of nothing", ("decision_id", "empty", "expected an id that Decide returned"), "", INVALID),
    explain("of nonsense", ("decision_id", "'nonsense'"), "nonsense"),
    explain("of what is long", ("decision_id", "10002 characters"), "9" * 10_000),
    explain("of a wrong partition", ("decision_id", "'4-1-0'"), "4-1-0"),
    explain("of numbers beyond all", ("decision_id",), "0-ffffffffffffffff-0"),
    get("nobody", ("customer_id", "empty"), customer_id=""),
    get("somebody long", ("customer_id", "65 bytes"), customer_id=LONG),
    get("as of the future", ("time_ms", "ahead of the server's clock"), customer_id="ann", time_ms=FAR_MS),
    get("a page too large", ("page_size: 501", "expected 1 to 500, or 0 for 50"), customer_id="ann", page_size=501),
    get("a page beyond all", ("page_size: 4294967295",), customer_id="ann", page_size=2**32 - 1),
    get("no token", ("page_token: 'next' is none", "as it came"), customer_id="ann", page_token="next"),
    get("a token of other letters", ("page_token", "is none"), customer_id="ann", page_token="é" * 27),
    get("a token of odd letters", ("page_token", "is none"), customer_id="ann", page_token="!" * 27),
    get("a very long token", ("page_token", "100002 characters"), customer_id="ann", page_token="A" * 100_000),
    get("a made-up token", ANOTHER, customer_id="ann", page_token="A" * 27),
    get("another's page", ANOTHER, customer_id="ann", page_token=token("bob")),
    get("a page of other channels", ANOTHER, customer_id="ann", page_token=token(), channels=["web"]),
    get("a page of other kinds", ANOTHER, customer_id="ann", page_token=token(), kinds=[1]),
    get("a page of other times", ANOTHER, customer_id="ann", page_token=token(), since_ms=1),
    get("an unsaid kind", ("kinds[1]: missing", KINDS), customer_id="ann", kinds=[1, 0]),
    get("an unknown kind", ("kinds[0]: 99", KINDS), customer_id="ann", kinds=[99]),
    get("too many kinds", ("kinds: 17 entries", "at most 16"), customer_id="ann", kinds=[1] * 17),
    get("an empty channel", ("channels[1]", "empty"), customer_id="ann", channels=["web", ""]),
    get("a long channel", ("channels[0]", "65 bytes"), customer_id="ann", channels=[LONG]),
    get("too many channels", ("channels: 65 entries", "at most 64"), customer_id="ann", channels=["web"] * 65),
    get("before time", ("since_ms: -1 is not a time", NO_TIME), customer_id="ann", since_ms=-1),
    get("after time", ("until_ms", NO_TIME), customer_id="ann", until_ms=TIME_MS_MAX + 1),
    get("nothing between", ("until_ms: 5", "after since_ms, 5"), customer_id="ann", since_ms=5, until_ms=5),
    Bad("publish nothing", PUBLISH, lambda _: events_pb2.PublishRequest(), INVALID, ("events", "expected 1 to 1000")),
    Bad(
        "publish too many",
        PUBLISH,
        lambda _: events_pb2.PublishRequest(events=[events_pb2.Event()] * 1_001),
        INVALID,
        ("events: 1001", "at most 1000"),
    ),
)

GOOD_EVENT = {"id": "e1", "source": "till", "type": "purchase", "customer_id": "ann"}
AMOUNT = {"amount": value_of(5.0)}

BAD_EVENTS: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
    ("without an id", {"id": ""}, ("id", "empty")),
    ("with a long id", {"id": LONG}, ("id", "65 bytes")),
    ("with a control character", {"id": "a\x1bb"}, ("id", "U+001B")),
    ("without a source", {"source": ""}, ("source", "empty", "expected 1 to 128")),
    ("with a long source", {"source": "s" * 129}, ("source", "129 bytes")),
    ("without a type", {"type": ""}, ("type", "there are purchase, complaint")),
    ("of no type", {"type": "moon"}, ("type", "'moon'", "there are purchase, complaint")),
    ("without a customer", {"customer_id": ""}, ("customer_id", "empty")),
    ("with a long customer", {"customer_id": LONG}, ("customer_id", "65 bytes")),
    ("without what it needs", {"attributes": {}}, ("attributes[amount]", "missing", "requires it")),
    ("with NaN", {"attributes": {"amount": value_of(math.nan)}}, ("attributes[amount]", "expected a finite number")),
    ("with -inf", {"attributes": {"amount": value_of(-math.inf)}}, ("attributes[amount]", "expected a finite number")),
    ("out of range", {"attributes": {"amount": value_of(-1.0)}}, ("attributes[amount]", "expected 0.0 to 100000.0")),
    ("of a wrong kind", {"attributes": {"amount": value_of("5")}}, ("attributes[amount]", "'5' is a text")),
    ("with no value", {"attributes": {"amount": Value()}}, ("attributes[amount]", "expected number, text or flag")),
    (
        "with a wrong flag",
        {"attributes": AMOUNT | {"abroad": value_of(1.0)}},
        ("attributes[abroad]", "is a number", "expected a flag"),
    ),
    (
        "with a long text",
        {"attributes": AMOUNT | {"category": value_of("x" * 257)}},
        ("attributes[category]", "257 bytes", "at most 256"),
    ),
    ("from the future", {"time_ms": FAR_MS}, ("time", "ahead of the server's clock")),
    ("from long ago", {"time_ms": OLD_MS}, ("time", "behind the server's clock")),
    ("from before time", {"time_ms": -(2**63)}, ("time", NO_TIME)),
)


def event(fields: dict[str, Any]) -> events_pb2.Event:
    return events_pb2.Event(**(GOOD_EVENT | {"attributes": AMOUNT} | fields))
