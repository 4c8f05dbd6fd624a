"""The HTTP edge for web callers: the same services as JSON, CloudEvents, metrics and health.

    POST /v1/decide     DecideRequest   → DecideResponse     fields as in proto/, in snake_case
    POST /v1/decide-many  DecideManyRequest → DecideManyResponse as JSON lines, as they are made
    GET  /v1/defaults?channel=…&placement=…&language=…   the signed list of default offers, the document itself
    GET  /v1/defaults/keys   DefaultKeysResponse: the public keys
    POST /v1/leads, /v1/leads/list, /v1/leads/take, /v1/leads/return, /v1/leads/complete   AddLeadsRequest → …
    POST /v1/explain    ExplainRequest  → ExplainResponse
    POST /v1/report     ReportRequest   → ReportResponse
    POST /v1/events     CloudEvents 1.0, structured or batch → PublishResponse
    POST /v1/customers  GetCustomerRequest → Customer
    GET  /v1/customers/ID?page_size=…&kinds=…&kinds=…  the same, the other fields as in the request
    POST /v1/customers/forget  ForgetRequest → ForgetResponse
    DELETE /v1/customers/ID?request_id=…  the same
    POST /v1/identities/link, /v1/identities/unlink, /v1/identities/lineage   LinkRequest → LinkResponse, …
    POST /v1/policies/validate, /v1/policies/propose   ValidateRequest → ValidateResponse, …; or the text itself as
                        application/yaml, the other fields as ?by=…&note=…&dry_run=true
    POST /v1/policies/approve, /v1/policies/rollback, /v1/policies/list   ApproveRequest → ChangeResponse, …
    GET  /v1/policies?limit=…  ListVersionsResponse
    GET  /metrics       Prometheus text     GET /healthz  200 "ok" while the process serves

An error is `{"error": {"status": "INVALID_ARGUMENT", "message": …}}` with the HTTP status of engine.errors.
"""

import asyncio
import base64
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import orjson
from aiohttp import web, web_response
from aiohttp.http import HttpProcessingError
from google.protobuf import json_format
from google.protobuf.message import Message
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine import metrics
from engine.cloudevents import events_in
from engine.errors import InvalidArgument, OpportuneError, Overloaded
from engine.gateway import shown
from engine.limits import CONNECTION_QUEUE_MAX, HTTP_IDLE_MS_MAX, HTTP_REQUEST_MS_MAX, MESSAGE_BYTES_MAX
from engine.service import Service
from engine.web_body import TooLarge, unpacked
from engine.web_json import parsed
from opportune.v1 import (
    customers_pb2,
    decisions_pb2,
    defaults_pb2,
    feedback_pb2,
    identities_pb2,
    leads_pb2,
    policies_pb2,
)

log = logging.getLogger(__name__)

_YAML: Final = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")

Call = Callable[[Any], Awaitable[Message]]
MessageT = TypeVar("MessageT", bound=Message)
Route = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SILENT: Final = web.AppKey("silent", dict[web.RequestHandler, asyncio.TimerHandle])
"""Connections on which no request has begun, with what closes them when their time is over."""


def application(service: Service) -> web.Application:
    """The routes on a service."""
    app = web.Application(client_max_size=MESSAGE_BYTES_MAX, middlewares=[_errors])
    app[_SILENT] = {}
    for path, request_type, call in (
        ("/v1/decide", decisions_pb2.DecideRequest, service.decide),
        ("/v1/explain", decisions_pb2.ExplainRequest, service.explain),
        ("/v1/report", feedback_pb2.ReportRequest, service.feedback.report),
        ("/v1/customers", customers_pb2.GetCustomerRequest, service.customers.get),
        ("/v1/customers/forget", customers_pb2.ForgetRequest, service.forgetting.forget),
        ("/v1/identities/link", identities_pb2.LinkRequest, service.identities.link),
        ("/v1/identities/unlink", identities_pb2.UnlinkRequest, service.identities.unlink),
        ("/v1/identities/lineage", identities_pb2.LineageRequest, service.identities.lineage),
        ("/v1/leads", leads_pb2.AddLeadsRequest, service.leads.add),
        ("/v1/leads/list", leads_pb2.ListLeadsRequest, service.leads.listed),
        ("/v1/leads/take", leads_pb2.TakeLeadRequest, service.leads.take),
        ("/v1/leads/return", leads_pb2.ReturnLeadRequest, service.leads.give_back),
        ("/v1/leads/complete", leads_pb2.CompleteLeadRequest, service.leads.complete),
        ("/v1/policies/approve", policies_pb2.ApproveRequest, service.policies.approve),
        ("/v1/policies/rollback", policies_pb2.RollbackRequest, service.policies.rollback),
        ("/v1/policies/list", policies_pb2.ListVersionsRequest, service.policies.list),
    ):
        app.router.add_post(path, _json_route(request_type, call))
    app.router.add_post("/v1/decide-many", _lines_route(decisions_pb2.DecideManyRequest, service.batches.decide_many))
    app.router.add_get("/v1/defaults", _defaults_route(service))
    app.router.add_get("/v1/defaults/keys", _default_keys_route(service))
    app.router.add_post("/v1/policies/validate", _text_route(policies_pb2.ValidateRequest, service.policies.validate))
    app.router.add_post("/v1/policies/propose", _text_route(policies_pb2.ProposeRequest, service.policies.propose))
    app.router.add_get("/v1/policies", _query_route(policies_pb2.ListVersionsRequest, service.policies.list))
    app.router.add_get("/v1/customers/{customer_id}", _customer_route(service))
    app.router.add_delete("/v1/customers/{customer_id}", _forget_route(service))
    app.router.add_post("/v1/events", _events_route(service))
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    return app


def _without_traceback(record: logging.LogRecord) -> bool:
    """One line about a request that is no HTTP: what is wrong with it is the caller's, not in the code."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
        record.msg, record.args = f"{record.getMessage()}: {_in_one_line(error)}", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = None
    return True


def _in_one_line(error: Exception) -> str:
    """What is wrong by aiohttp, which draws it with an arrow below."""
    return " ".join(str(error).removeprefix("400, message:").split())


# Of which version of what we are made is nobody's business, and aiohttp has no setting for it.
web_response.SERVER_SOFTWARE = "opportune"  # type: ignore[attr-defined]

_http_log: Final = log.getChild("http")
"""What aiohttp has to say."""
_http_log.addFilter(_without_traceback)


class WebServer:
    """The application, listening."""

    def __init__(self, service: Service) -> None:
        app = application(service)
        self._silent = app[_SILENT]
        self._listener: asyncio.Server | None = None
        self._runner = web.AppRunner(
            app,
            logger=_http_log,
            auto_decompress=False,
            access_log=None,
            shutdown_timeout=1.0,
            keepalive_timeout=HTTP_IDLE_MS_MAX / 1e3,
            lingering_time=HTTP_REQUEST_MS_MAX / 1e3,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen on an address that several servers may share, IPv6 in brackets; return the port. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        at = (host.strip("[]"), port)
        sock = socket.create_server(at, family=family, reuse_port=True, backlog=CONNECTION_QUEUE_MAX)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connection, sock=sock, backlog=CONNECTION_QUEUE_MAX)
        bound: int = sock.getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close the port and let requests under way finish."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()

    def _connection(self) -> web.RequestHandler:
        """What serves a new connection. aiohttp waits for its first request as long as for the next one."""
        assert self._runner.server is not None
        connection = self._runner.server()
        loop = asyncio.get_running_loop()
        self._silent[connection] = loop.call_later(HTTP_REQUEST_MS_MAX / 1e3, self._hang_up, connection)
        return connection

    def _hang_up(self, connection: web.RequestHandler) -> None:
        del self._silent[connection]
        connection.force_close()


def _json_route(request_type: type[Message], call: Call) -> Route:
    async def route(request: web.Request) -> web.Response:
        return _json(await call(await _message(request, request_type)))

    return route


async def _body(request: web.Request) -> bytes:
    """The whole body. Raises InvalidArgument, and the HTTPException of one that is too large or too slow."""
    if (request.content_length or 0) > MESSAGE_BYTES_MAX:
        raise web.HTTPRequestEntityTooLarge(MESSAGE_BYTES_MAX)
    try:
        async with asyncio.timeout(HTTP_REQUEST_MS_MAX / 1e3):
            body = await request.read()
        return unpacked(body, request.headers.get("Content-Encoding", ""), MESSAGE_BYTES_MAX)
    except TooLarge:
        raise web.HTTPRequestEntityTooLarge(MESSAGE_BYTES_MAX) from None
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError as error:
        encoding = request.headers.get("Content-Encoding")
        how = "in the chunks that it came in" if encoding is None else f"in Content-Encoding {shown(encoding)}"
        raise InvalidArgument(f"body: cannot be read, expected one {how}: {_in_one_line(error)}") from error
    except ConnectionError as error:  # nobody is there to read this; it only is no fault of the engine
        raise InvalidArgument("body: the caller left before all of it had come") from error


async def _message(request: web.Request, request_type: type[Message]) -> Message:
    """The message that the body is. Raises InvalidArgument and what `_body` does."""
    _no_query(request)
    body = await _body(request)
    what = f"{request_type.DESCRIPTOR.name} in JSON"
    try:
        # orjson first: it refuses NaN and invalid UTF-8, and says where.
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"body: no {what}: {error}") from error
    if not isinstance(given, dict):
        raise InvalidArgument(f"body: {shown(given)}, expected an object, a {what}")
    return parsed(given, request_type(), what)


def _no_query(request: web.Request) -> None:
    """Refuse parameters where nobody looks at them. Raises InvalidArgument."""
    for name in request.query:
        raise InvalidArgument(f"query: no parameter {shown(name)}, expected all of the request in its body")


def _text_route(request_type: type[Message], call: Call) -> Route:
    """As JSON, with the text of a configuration in base64; or that text itself."""

    async def route(request: web.Request) -> web.Response:
        if request.content_type in _YAML:
            return _json(await call(_of_query(request, request_type(text=await _body(request)))))
        message = await _message(request, request_type)
        given = orjson.loads(await _body(request)).get("text") or ""
        # What is no base64 would be left out of it, and something else be read than was sent.
        if _base64(given) != _base64(base64.b64encode(message.text).decode()):  # type: ignore[attr-defined]
            raise InvalidArgument("text: no base64; the text as it is goes into a body of application/yaml")
        return _json(await call(message))

    return route


def _base64(text: str) -> str:
    """Without what writers of base64 differ in."""
    return "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")


def _query_route(request_type: type[Message], call: Call) -> Route:
    async def route(request: web.Request) -> web.Response:
        return _json(await call(_of_query(request, request_type())))

    return route


def _of_query(request: web.Request, message: MessageT) -> MessageT:
    """The message with the fields that are parameters: none that it has already. Raises InvalidArgument."""
    taken = {field.name for field, _ in message.ListFields()}
    fields = {
        field.name: field
        for field in message.DESCRIPTOR.fields
        if field.message_type is None and field.type != field.TYPE_BYTES and field.name not in taken
    }
    asked: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        if name not in fields:
            raise InvalidArgument(f"query: no parameter {shown(name)}; there are {', '.join(fields) or 'none'}")
        if not fields[name].is_repeated and len(values) > 1:
            raise InvalidArgument(f"query: {name} is there {len(values)} times, expected once")
        asked[name] = list(values) if fields[name].is_repeated else values[0]
        if fields[name].type == fields[name].TYPE_BOOL:
            if values[0] not in ("true", "false"):
                raise InvalidArgument(f"query: {name} is {shown(values[0])}, expected true or false")
            asked[name] = values[0] == "true"
    try:
        return parsed(asked, message, "request")
    except InvalidArgument as error:
        raise InvalidArgument(f"query: {error}") from error


def _lines_route(request_type: type[Message], call: Callable[[Any], AsyncIterator[Message]]) -> Route:
    """JSON lines, one a message. What goes wrong before the first is an error as always, later it is the last line."""

    async def route(request: web.Request) -> web.StreamResponse:
        messages = call(await _message(request, request_type))
        first = await anext(messages, None)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            await response.prepare(request)
            if first is not None:
                await response.write(_line(first))
            async for message in messages:
                await response.write(_line(message))
        except OpportuneError as error:
            metrics.REFUSED.labels(error.grpc_status.name).inc()
            told = {"error": {"status": error.grpc_status.name, "message": str(error)}}
            await response.write(orjson.dumps(told) + b"\n")
        except ConnectionError:
            return response  # the caller left: what waits is dropped when the generator closes
        finally:
            await messages.aclose()  # type: ignore[attr-defined]  # handlers are generators
        await response.write_eof()
        return response

    return route


def _line(message: Message) -> bytes:
    return orjson.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True)) + b"\n"


def _defaults_route(service: Service) -> Route:
    async def route(request: web.Request) -> web.Response:
        for name in request.query:
            if name not in ("channel", "placement", "language") or len(request.query.getall(name)) > 1:
                raise InvalidArgument(f"query: {shown(name)}, expected channel, placement and language, each once")
        answer = await service.defaults.defaults(defaults_pb2.DefaultsRequest(**request.query))
        return web.Response(text=answer.document, content_type="application/json")

    return route


def _default_keys_route(service: Service) -> Route:
    async def route(_: web.Request) -> web.Response:
        return _json(await service.defaults.keys(defaults_pb2.DefaultKeysRequest()))

    return route


def _customer_route(service: Service) -> Route:
    async def route(request: web.Request) -> web.Response:
        person = customers_pb2.GetCustomerRequest(customer_id=request.match_info["customer_id"])
        return _json(await service.customers.get(_of_query(request, person)))

    return route


def _forget_route(service: Service) -> Route:
    async def route(request: web.Request) -> web.Response:
        for name in request.query:
            if name != "request_id" or len(request.query.getall(name)) > 1:
                raise InvalidArgument(f"query: {shown(name)}, expected request_id, once")
        asked = customers_pb2.ForgetRequest(
            request_id=request.query.get("request_id", ""), customer_id=request.match_info["customer_id"]
        )
        return _json(await service.forgetting.forget(asked))

    return route


def _events_route(service: Service) -> Route:
    async def route(request: web.Request) -> web.Response:
        body = await _body(request)  # webhooks come with parameters of their own, such as access_token
        response = await service.events.take(events_in(body, request.content_type, service.catalogue, service.clock()))
        # Nothing of a body was good: that is the sender's error, and the answer says which and why.
        return _json(response, status=400 if response.rejected and not response.accepted else 200)

    return route


def _json(message: Message, status: int = 200) -> web.Response:
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return web.Response(body=orjson.dumps(fields), status=status, content_type="application/json")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


@web.middleware
async def _errors(request: web.Request, handler: Route) -> web.StreamResponse:
    if (timer := request.app[_SILENT].pop(request.protocol, None)) is not None:
        timer.cancel()
    try:
        if not _is_text(request.raw_path):
            raise InvalidArgument(f"path: {shown(request.raw_path)}, expected UTF-8 behind its percent signs")
        return await handler(request)
    except OpportuneError as error:
        return _error(error.http_status, error.grpc_status.name, str(error))
    except web.HTTPRequestEntityTooLarge:
        too_large = f"body: larger than {MESSAGE_BYTES_MAX} bytes"
        return _error(413, Overloaded.grpc_status.name, too_large)
    except web.HTTPRequestTimeout:
        response = _error(408, "DEADLINE_EXCEEDED", f"body: not all of it came within {HTTP_REQUEST_MS_MAX} ms")
        response.force_close()
        return response
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        told = f"path: {request.method} {shown(request.path)}: {error.reason}, expected {allowed}"
        response = _error(error.status, "INVALID_ARGUMENT", told)
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound as error:
        told = f"path: {shown(request.path)}: {error.reason}; docs/api.md has them all"
        return _error(error.status, "NOT_FOUND", told)
    except web.HTTPException as error:
        return _error(error.status, "INVALID_ARGUMENT", error.reason)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(500, "INTERNAL", "an error of the engine; its log has the details")


def _is_text(path: str) -> bool:
    """Whether a path means a text: what does not would be taken as it stands, and "%FF" is a name like others."""
    if "%" not in path and path.isascii():
        return True
    try:
        unquote_to_bytes(path.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError:
        return False
    return True


def _error(status: int, name: str, message: str) -> web.Response:
    metrics.REFUSED.labels(name).inc()
    body = orjson.dumps({"error": {"status": name, "message": message}})
    return web.Response(body=body, status=status, content_type="application/json")
