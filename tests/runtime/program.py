"""A small engine in a process of its own, for tests that kill it: `python -m tests.runtime.program OPTIONS_JSON`."""

import json
import sys

from engine.datafolder import DataFolder
from engine.embedded import EmbeddedStore
from engine.errors import OpportuneError
from engine.supervisor import Supervisor, WorkerSpec

WORKER = """
import os, signal, sys
name, journal, behaviour = sys.argv[1:]
def end(*_):
    with open(journal, "a") as file:
        file.write(name + "\\n")
    os._exit(0)
if behaviour == "crash":
    sys.exit("ERROR nothing works")
if behaviour == "refused":
    print("ERROR nobody has proposed it", file=sys.stderr, flush=True)
    os._exit(78)
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else end)
print("WARNING hello from", name, file=sys.stderr, flush=True)
print('ready {"grpc": "127.0.0.1:1"}', flush=True)
if behaviour == "crash later":
    sys.exit(3)
if behaviour == "reload":
    with open(journal, "a") as file:
        file.write("again\\n")
    with open(journal) as file:
        again = file.read().count("again")
    if again < 8:
        os._exit(75)
while behaviour in ("stubborn", "deaf"):
    signal.pause()
sys.stdin.read()
end()
"""


def say_ready() -> None:
    sys.stdout.write("on_ready\n")
    sys.stdout.flush()


def main() -> int:
    options = json.loads(sys.argv[1])
    try:
        with DataFolder(options["data"]) as folder:
            store = EmbeddedStore(folder, options.get("binary")) if options.get("store", True) else None
            workers = [
                WorkerSpec(
                    name,
                    (sys.executable, "-c", WORKER, name, options["journal"], behaviour),
                    stop_order=0 if name.startswith("serve") else 1,
                )
                for name, behaviour in options.get("workers", {}).items()
            ]
            limits = {"restarts_max": options["restarts_max"]} if "restarts_max" in options else {}
            return Supervisor(folder, store, workers, say_ready, **limits).run()
    except OpportuneError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
