"""gRPC itself, over both transports: bytes that are no message, sizes, unknown methods, health and reflection."""

import asyncio

import grpc
import pytest
from bad_requests import DECIDE, EXPLAIN, GET, PUBLISH, REPORT
from doors import Door
from faulty_store import FaultyStore
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.limits import DECIDE_BATCHES_MAX, MESSAGE_BYTES_MAX
from engine.rpc import Server
from opportune.v1 import decisions_pb2, events_pb2
from tests.small_engine import PARTITIONS, SmallEngine, value_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
GOOD = decisions_pb2.DecideRequest(customer_id="ann", channel="branch").SerializeToString()


async def still_serves(wire: Door) -> None:
    status, message, answer = await wire.send(DECIDE, GOOD)
    assert (status, message) == ("OK", "")
    assert answer.decision_id


def text_field(number: int, content: bytes) -> bytes:
    """A field of type string on the wire."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


GARBAGE = {
    "random bytes": b"\xff\xfe\xfd\xfc\xfb",
    "a field without its end": b"\x12\x7fann",
    "a group that never ends": b"\x0b",
    "a field of number 0": b"\x02\x01a",
    "a length beyond all": b"\x12\xff\xff\xff\xff\x7f",
    "JSON": b'{"customer_id": "ann", "channel": "branch"}',
    "invalid UTF-8 in the customer": text_field(2, b"\xff\xfe") + text_field(4, b"branch"),
    "half a character": text_field(2, "é".encode()[:1]) + text_field(4, b"branch"),
    "a surrogate": text_field(2, b"\xed\xa0\x80") + text_field(4, b"branch"),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_bytes_that_are_no_message_are_the_callers_error(wire: Door, name: str) -> None:
    status, message, _ = await wire.send(DECIDE, GARBAGE[name])
    assert (status, "is no valid opportune.v1.DecideRequest message" in message) == ("INVALID_ARGUMENT", True)
    await still_serves(wire)


@pytest.mark.parametrize("method", [DECIDE, EXPLAIN, REPORT, PUBLISH, GET])
async def test_an_empty_message_is_an_empty_request(wire: Door, method: str) -> None:
    status, message, _ = await wire.send(method, b"")
    assert (status, "empty" in message) == ("INVALID_ARGUMENT", True)


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX + 1, 10 * 1024 * 1024])
@pytest.mark.parametrize("method", [DECIDE, PUBLISH])
async def test_a_message_beyond_the_limit_is_refused(wire: Door, method: str, size: int) -> None:
    status, _, _ = await wire.send(method, text_field(1, b"x") + bytes(size))
    assert status == "RESOURCE_EXHAUSTED"
    await still_serves(wire)


async def test_a_message_of_just_the_limit_is_read(wire: Door) -> None:
    """Four megabytes of one text: read, and refused for what it is."""
    request = decisions_pb2.DecideRequest(customer_id="ann", channel="branch")
    request.context["intent"].text = ""
    request.context["intent"].text = "x" * (MESSAGE_BYTES_MAX - request.ByteSize() - 20)
    assert MESSAGE_BYTES_MAX - 40 < request.ByteSize() <= MESSAGE_BYTES_MAX
    status, message, _ = await wire.send(DECIDE, request.SerializeToString())
    assert (status, "context[intent]" in message, len(message) < 400) == ("INVALID_ARGUMENT", True, True)


async def test_fields_of_a_later_version_are_ignored(wire: Door) -> None:
    status, _, answer = await wire.send(DECIDE, GOOD + b"\xfa\x7f\x03new")
    assert (status, answer.customer_id) == ("OK", "ann")


async def test_a_thousand_events_of_the_largest_kind_are_taken(wire: Door) -> None:
    events = [
        events_pb2.Event(id=f"{'i' * 59}{n:05}", source="s" * 128, type="purchase", customer_id="c" * 64,
                         attributes={"amount": value_of(1.0), "category": value_of("food")})
        for n in range(1_000)
    ]  # fmt: skip
    status, _, answer = await wire.call(PUBLISH, events_pb2.PublishRequest(events=events))
    assert (status, answer.accepted, len(answer.positions)) == ("OK", 1_000, 1_000)


@pytest.mark.parametrize("method", ["Decisions/Forget", "Nothing/Decide"])
async def test_what_is_not_there_is_unimplemented(wire: Door, method: str) -> None:
    assert wire.channel is not None
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await wire.channel.unary_unary(f"/opportune.v1.{method}")(b"", timeout=5.0)
    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
    await still_serves(wire)


@pytest.mark.parametrize("service", ["", "opportune.v1.Decisions", "opportune.v1.Feedback", "opportune.v1.Events"])
async def test_health_tells_that_it_serves(wire: Door, service: str) -> None:
    answer = await health_pb2_grpc.HealthStub(wire.channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_knows_no_other_service(wire: Door) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await health_pb2_grpc.HealthStub(wire.channel).Check(health_pb2.HealthCheckRequest(service="moon"))
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND


async def reflected(wire: Door, **asked: str) -> reflection_pb2.ServerReflectionResponse:
    call = reflection_pb2_grpc.ServerReflectionStub(wire.channel).ServerReflectionInfo(timeout=5.0)
    await call.write(reflection_pb2.ServerReflectionRequest(**asked))
    answer = await call.read()
    await call.done_writing()
    return answer


async def test_reflection_lists_the_services(wire: Door) -> None:
    answer = await reflected(wire, list_services="")
    assert {service.name for service in answer.list_services_response.service} == {
        "opportune.v1.Decisions",
        "opportune.v1.Feedback",
        "opportune.v1.Events",
        "opportune.v1.Customers",
        "opportune.v1.Leads",
        "opportune.v1.Identities",
        "opportune.v1.Policies",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("symbol", ["Decisions", "Decisions.Decide", "Decisions.DecideMany", "DecideRequest"])
async def test_reflection_describes_decide(wire: Door, symbol: str) -> None:
    answer = await reflected(wire, file_containing_symbol=f"opportune.v1.{symbol}")
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    [service] = [service for file in files for service in file.service if service.name == "Decisions"]
    names = ["Decide", "Explain", "DecideMany", "Defaults", "DefaultKeys"]
    assert [method.name for method in service.method] == names


@pytest.mark.parametrize("symbol", ["opportune.v1.Decisions.Decode", "opportune.v1.Moon.Decide", "moon", ""])
async def test_reflection_knows_no_other_names(wire: Door, symbol: str) -> None:
    answer = await reflected(wire, file_containing_symbol=symbol)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_many_calls_at_once_each_get_their_own_answer(wire: Door) -> None:
    requests = [decisions_pb2.DecideRequest(customer_id=f"many-{n % 150}", channel="branch") for n in range(300)]
    ends = await asyncio.gather(*(wire.call(DECIDE, request) for request in requests))
    assert {status for status, _, _ in ends} == {"OK"}
    assert [answer.customer_id for _, _, answer in ends] == [request.customer_id for request in requests]
    assert len({answer.decision_id for _, _, answer in ends}) == 300


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_a_deadline_that_is_near_ends_that_call_only(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store hangs: who waits half a second gets the fallback, who waits longer an answer when it is back."""
    monkeypatch.setattr("engine.deadlines._MARGIN_S", 0.4)  # on a machine that is busy with other tests
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(store=store)
    server = Server(engine.service, transport)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/opportune.v1.Decisions/Decide")
        store.gate.clear()
        patient = asyncio.ensure_future(call(GOOD, timeout=20.0))
        hasty = [asyncio.ensure_future(call(GOOD, timeout=0.5)) for _ in range(3)]
        ends = [decisions_pb2.DecideResponse.FromString(answer) for answer in await asyncio.gather(*hasty)]
        assert [end.degraded for end in ends] == [decisions_pb2.DEGRADED_REASON_DEADLINE_NEAR] * 3
        store.gate.set()
        assert decisions_pb2.DecideResponse.FromString(await patient).decision_id
        assert decisions_pb2.DecideResponse.FromString(await call(GOOD, timeout=20.0)).decision_id
    await server.stop(1.0)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_an_answer_that_was_found_stands_when_the_rest_of_its_batch_fails(transport: str) -> None:
    """A request that is repeated needs no commit: a bug in the commit of the others is theirs alone."""
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = SmallEngine(store=store)
    server = Server(engine.service, transport)
    port = await server.start("127.0.0.1:0")
    before = await engine.decide("ann", request_id="call-1")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/opportune.v1.Decisions/Decide")
        store.gate.clear()
        busy = []
        for number in range(DECIDE_BATCHES_MAX):  # a batch each: what comes now waits for the next one
            busy.append(asyncio.create_task(engine.decide(f"busy-{number}")))
            await asyncio.sleep(0.001)
        again = decisions_pb2.DecideRequest(customer_id="ann", channel="branch", request_id="call-1")
        other = decisions_pb2.DecideRequest(customer_id="bob", channel="branch")
        both = [asyncio.ensure_future(call(each.SerializeToString(), timeout=20.0)) for each in (again, other)]
        while len(engine.service.decider._queue) < 2:
            await asyncio.sleep(0.001)
        store.failing["commit_decisions"] = RuntimeError("a bug")
        store.gate.set()
        found, lost, *_ = await asyncio.gather(*both, *busy, return_exceptions=True)
    assert isinstance(found, bytes)
    assert decisions_pb2.DecideResponse.FromString(found).decision_id == before.decision_id
    assert isinstance(lost, grpc.aio.AioRpcError)
    assert lost.code() == grpc.StatusCode.INTERNAL
    await server.stop(1.0)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_a_stop_lets_calls_under_way_finish(transport: str) -> None:
    engine = SmallEngine()
    server = Server(engine.service, transport)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/opportune.v1.Decisions/Decide")
        await call(GOOD, timeout=5.0)
        under_way = [asyncio.ensure_future(call(GOOD, timeout=5.0)) for _ in range(20)]
        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        await engine.service.drain()
        await server.stop(2.0)
        ends = await asyncio.gather(*under_way, return_exceptions=True)
    codes = {end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)}
    # grpcio itself cancels calls that it had not yet handed on.
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    answers = [decisions_pb2.DecideResponse.FromString(end) for end in ends if isinstance(end, bytes)]
    assert len(answers) >= 1
    assert all(answer.decision_id for answer in answers)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from([DECIDE, EXPLAIN, REPORT, PUBLISH, GET]), data=st.binary(max_size=60))
async def test_any_bytes_are_answered_or_refused_and_never_internal(wire: Door, method: str, data: bytes) -> None:
    """Whatever comes, the status is one that is documented for the caller's own mistakes."""
    status, message, _ = await wire.send(method, data)
    assert status in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")
    assert bool(message) == (status != "OK")
