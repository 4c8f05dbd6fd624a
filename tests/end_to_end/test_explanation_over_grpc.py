"""Explaining a decision of an engine in service, and again after it was stopped and started."""

import json
from pathlib import Path

from opportune.v1 import decisions_pb2, feedback_pb2
from tests.engine_process import EngineProcess
from tests.waiting import wait_until


def test_a_decision_is_explained_by_its_policy_before_and_after_a_restart(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine:
        engine.start()
        with engine.client() as client:

            def decide(customer: str) -> decisions_pb2.DecideResponse:
                request = decisions_pb2.DecideRequest(customer_id=customer, channel="branch")
                request.context["minutes"].number = 50 if customer.startswith("long") else 5
                answer: decisions_pb2.DecideResponse = client.decisions.Decide(request, timeout=5)
                return answer

            def explain(answer: decisions_pb2.DecideResponse) -> decisions_pb2.ExplainResponse:
                request = decisions_pb2.ExplainRequest(decision_id=answer.decision_id)
                told: decisions_pb2.ExplainResponse = client.decisions.Explain(request, timeout=5)
                return told

            def learn(count: int) -> None:
                version = decide("long").policy_version
                for n in range(count):
                    customer = f"{'long' if n % 2 else 'short'}-{version}-{n}"
                    answer = decide(customer)
                    for offer in answer.offers:
                        stage = "STAGE_ACCEPTED" if n % 2 else "STAGE_DECLINED"
                        report = feedback_pb2.ReportRequest(
                            outcome_id=offer.offer_id, decision_id=answer.decision_id, offer_id=offer.offer_id,
                            stage=stage,
                        )  # fmt: skip
                        client.feedback.Report(report, timeout=5)
                wait_until(lambda: decide("long").policy_version > version, 10, "the policy that was learnt serves")

            learn(40)
            decided = decide("long-talk")
            told = explain(decided)
            assert (told.explained_by_policy_version, told.exact) == (decided.policy_version, True)
            first = told.candidates[0]
            added = sum(part.probability for part in first.contributions)
            assert abs(first.base_rate + added - first.factors.estimate) < 1e-9
            [minutes] = [part for part in first.contributions if part.input == "minutes"]
            assert minutes.probability > 0.05, "who talks long accepts"
            learn(20)
            again = explain(decided)
            assert (again.explained_by_policy_version, again.exact) == (decided.policy_version, True)
            assert list(again.candidates[0].contributions) == list(first.contributions)

        page = engine.run("explain", decided.decision_id, "--grpc", engine.grpc)
        assert page.returncode == 0, page.stderr
        assert f"Rank 1: {first.offer_id}" in page.stdout
        assert "█" in page.stdout
        assert "base rate" in page.stdout
        assert engine.stop() == 0

        engine.start()
        message = engine.run("explain", decided.decision_id, "--grpc", engine.grpc, "--json", "--language", "en-GB")
        after = json.loads(message.stdout)
        # What was in memory is gone; the first policy and the last one that the learner left in the store are not.
        assert after["candidates"][0]["propensity"] == first.propensity
        assert after["policy_version"] == str(decided.policy_version)
        assert after["candidates"][0]["contributions"]
        assert after.get("exact", False) == (after["explained_by_policy_version"] == after["policy_version"])
        assert bool(after.get("caveat")) != after.get("exact", False)
        unknown = engine.run("explain", "0-1-0", "--grpc", engine.grpc)
        assert (unknown.returncode, unknown.stderr.strip()) == (
            1, "Error: NOT_FOUND: decision_id: no decision '0-1-0', or its record was retired",
        )  # fmt: skip
