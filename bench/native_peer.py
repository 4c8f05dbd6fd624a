"""pygrpc-native's side of `decide.throughput_vs_pygrpc_native_empty`: run by its path, where nothing of ours is.

    python -I native_peer.py SERVICE/METHOD      answers calls with nothing until stdin ends

A server as its users have it: its asyncio server in place of grpcio's, on uvloop. Without protobuf: bytes in, none out.
"""

import asyncio
import sys
from typing import Any

import grpc
import pygrpc_native.aio
import uvloop


async def _answer(request: bytes, context: Any) -> bytes:
    return b""


async def _serve(path: str) -> None:
    service, method = path.split("/")
    server = pygrpc_native.aio.server()
    server.add_registered_method_handlers(service, {method: grpc.unary_unary_rpc_method_handler(_answer)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("ready", port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
