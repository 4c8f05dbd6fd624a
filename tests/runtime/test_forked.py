"""Forked workers: what they have of the supervisor, and what not. In an interpreter of its own: pytest has threads."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

_BEFORE = """
import _thread, json, os, signal, sys, threading, time
from pathlib import Path
from engine.forked import Forked, possible

log = open(sys.argv[1], "ab")
found = {}

def told():
    print(json.dumps({
        "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],  # the last one lists them
        "session": os.getsid(0) == os.getpid(),
        "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "title": Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode(),
        "end": sys.stdin.read(),
    }), flush=True)
    sys.exit(7)
"""
_AFTER = """
print(json.dumps(found))
"""


def run(script: str, log: Any, shell: str = "") -> dict[str, Any]:
    command = [sys.executable, "-c", _BEFORE + script + _AFTER, str(log)]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


_WHOLE = """
signal.signal(signal.SIGTERM, lambda *_: None)
wakeup = os.pipe()
first = Forked(told, "opportune first", log)
second = Forked(told, "opportune second", log)
first.stdin.close()  # the second one has no copy of this end, or the first would never see it
found["first"] = json.loads(first.stdout.read())
found["running"] = second.poll()
second.stdin.close()
found["second"] = json.loads(second.stdout.read())
found["codes"] = [first.wait(), second.wait(), first.wait()]
"""


@pytest.mark.parametrize("shell", ["", "<&-"])
def test_a_fork_has_three_files_a_session_and_signals_of_its_own(tmp_path: Any, shell: str) -> None:
    found = run(_WHOLE, tmp_path / "log", shell)
    own = {"files": [0, 1, 2], "session": True, "term": True, "blocked": 0, "end": ""}
    assert found["first"] == own | {"title": "opportune first"}
    assert found["second"] == own | {"title": "opportune second"}
    assert (found["running"], found["codes"]) == (None, [7, 7, 7])


_ENDS = """
def breaks():
    raise ValueError("no more paper")

def ends():
    pass

def words():
    sys.exit("told why")

found["codes"] = [Forked(work, "opportune", log).wait() for work in (breaks, ends, words)]
sleeper = Forked(lambda: time.sleep(60), "opportune", log)
sleeper.kill()
found["killed"] = sleeper.wait()
sleeper.kill()
sleeper.terminate()
"""


def test_how_it_ended_is_told(tmp_path: Any) -> None:
    found = run(_ENDS, tmp_path / "log")
    assert (found["codes"], found["killed"]) == ([1, 0, 1], -9)
    assert "ValueError: no more paper" in (tmp_path / "log").read_text()


_UNHEARD = """
def speaks():
    sys.stdin.read()
    print("to nobody", end="")

unheard = Forked(speaks, "opportune", log)
unheard.stdout.close()
unheard.stdin.close()
found["code"] = unheard.wait()
log.write(b"here is %d\\n" % os.getpid())
log.flush()
"""


def test_a_fork_whose_last_words_nobody_reads_ends_all_the_same(tmp_path: Any) -> None:
    """What comes after it in the program is its supervisor's, and must not be done twice."""
    found = run(_UNHEARD, tmp_path / "log")
    assert found["code"] == 0
    assert (tmp_path / "log").read_text().count("here is") == 1


_THREADS = """
found["alone"] = possible()
ended = threading.Event()
flusher = threading.Thread(target=ended.wait)
flusher.start()
found["beside one of Python's"] = possible()
_thread.start_new_thread(ended.wait, ())  # as libraries have them
time.sleep(0.1)
found["beside one of nobody's"] = possible()
ended.set()
"""


def test_nothing_is_forked_beside_threads_of_libraries(tmp_path: Any) -> None:
    found = run(_THREADS, tmp_path / "log")
    assert found == {"alone": True, "beside one of Python's": True, "beside one of nobody's": False}
