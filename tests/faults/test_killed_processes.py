"""kill -9 of any process, or of all, under traffic: nothing acknowledged is lost, nothing counts twice."""

import os
import signal
import time
from pathlib import Path
from random import Random

from tests.engine_process import EngineProcess
from tests.faults.traffic import Traffic


def test_each_process_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    dice = Random(1)
    with EngineProcess(tmp_path) as engine, Traffic(engine.start(), seed=1) as traffic:
        for name in ("serve-0", "store", "ingest", "learn", "store", "learn", "ingest"):
            traffic.wait_for_more(30)
            time.sleep(dice.random() / 2)
            pid = engine.signal(name, signal.SIGKILL)
            engine.wait_ready(replaced=pid)
        traffic.wait_for_more()
        traffic.stop()
        traffic.check(engine)
        engine.replay()
        assert engine.stop() == 0
        engine.replay()


def test_the_supervisor_may_be_killed_and_all_at_once(tmp_path: Path) -> None:
    dice = Random(2)
    with EngineProcess(tmp_path) as engine, Traffic(engine.start(), seed=2) as traffic:
        for everything in (False, True):
            traffic.wait_for_more(30)
            time.sleep(dice.random() / 2)
            if everything:
                engine.kill_all()
            else:
                os.kill(engine.pids["supervisor"], signal.SIGKILL)
                engine.wait_gone()
            engine.start()
        traffic.wait_for_more()
        traffic.stop()
        traffic.check(engine)
        assert engine.stop() == 0
        engine.replay()
