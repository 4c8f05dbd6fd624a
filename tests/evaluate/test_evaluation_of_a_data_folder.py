"""`opportune evaluate` on the data folder of an engine that runs, and of one that has stopped."""

import json
import time
from pathlib import Path

from opportune.v1 import decisions_pb2, feedback_pb2
from tests.engine_process import CONFIG, EngineProcess

CUSTOMERS = 120
WINDOW_S = 1.0
SHOP = CONFIG.replace("value: 40,", "value: 40, window: 1s,").replace("value: 90,", "value: 90, window: 1s,")
SHOP = SHOP.replace("value: 30,", "value: 30, window: 1s,") + "silence: false\nexploration: {floor: 0.5}\n"


def test_running_or_not_the_log_says_the_same(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, config=SHOP) as engine:
        with engine.start().client() as client:
            for number in range(CUSTOMERS):
                answer = client.decisions.Decide(
                    decisions_pb2.DecideRequest(customer_id=f"c{number}", channel="branch"), timeout=5
                )
                stage = "STAGE_ACCEPTED" if number % 2 else "STAGE_DECLINED"
                report = feedback_pb2.ReportRequest(
                    outcome_id=f"o{number}",
                    decision_id=answer.decision_id,
                    offer_id=answer.offers[0].offer_id,
                    stage=stage,
                )
                client.feedback.Report(report, timeout=5)
            time.sleep(WINDOW_S + 0.2)
            # The clock of the log is that of its newest entry.
            client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="later", channel="web"), timeout=5)
        found = []
        for stopped in (False, True):
            if stopped:
                assert engine.stop() == 0
            out = tmp_path / f"{stopped}.json"
            words = ["--log", str(engine.data), "--config", str(engine.config), "--policy", "logged"]
            done = engine.run("evaluate", *words, "--reward", "target", "--json", str(out), timeout_s=60)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "answered" in done.stdout
            found.append(json.loads(out.read_text()))
        assert found[0] == found[1]
        assert found[0]["support"]["people"] == CUSTOMERS
        assert found[0]["answer"]["value"] == 0.5
        assert found[0]["answer"]["low"] < 0.5 < found[0]["answer"]["high"]
