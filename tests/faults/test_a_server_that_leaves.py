"""One of several servers is stopped under load: its callers go on with the others and see no error."""

import signal
import threading
from pathlib import Path

import grpc

from opportune.v1 import decisions_pb2
from tests.engine_process import EngineProcess
from tests.waiting import wait_until

CALLERS = 12


def test_no_call_fails_while_a_server_is_stopped(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "--servers", "2") as engine:
        engine.start()
        made = [0] * CALLERS
        failed: list[grpc.RpcError] = []
        stop = threading.Event()

        def call(caller: int) -> None:
            with engine.client() as client:
                while not stop.is_set():
                    asked = decisions_pb2.DecideRequest(customer_id=f"c{caller}-{made[caller] % 20}", channel="web")
                    try:
                        assert not client.decisions.Decide(asked, timeout=10).degraded
                    except grpc.RpcError as error:
                        failed.append(error)
                    made[caller] += 1

        callers = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
        for thread in callers:
            thread.start()
        try:
            for name in ("serve-0", "serve-1"):
                before = sum(made)
                wait_until(lambda before=before: sum(made) > before + 200, 20, "calls are answered")  # type: ignore[misc]
                engine.wait_ready(replaced=engine.signal(name, signal.SIGTERM))
            before = sum(made)
            wait_until(lambda: sum(made) > before + 200, 20, "calls are answered after both have left")
        finally:
            stop.set()
            for thread in callers:
                thread.join()
        assert failed == []
        assert engine.stop() == 0
