"""Faust workers: whatever happens to them, the records end as those of one undisturbed fold."""

from tests.kafka.cluster import Cluster, Session


def test_events_are_folded(cluster: Cluster) -> None:
    cluster.run(lambda session: session.publish([(f"c{n % 50}", n, 1.0) for n in range(1_000)]))
    worker = cluster.start_worker()
    assert len(cluster.check()) == 50
    cluster.run(lambda session: session.publish([(f"c{n % 50}", n, 1.0) for n in range(1_000, 3_000)]))
    cluster.check()
    assert worker.stop() == 0
