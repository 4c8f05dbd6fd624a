"""What is true of MemoryStore only: it forgets by its own clock and bounds what nothing else can look at."""

from engine.store import DecisionCommit, MemoryStore


async def test_memory_forgets_customers_of_whom_nothing_was_heard() -> None:
    now_ms = 0
    store = MemoryStore(1, lambda: now_ms)
    await store.commit_decisions([DecisionCommit("anna", b"", b"head", b"tail", b"record")])
    now_ms = 399 * 86_400_000
    assert (await store.read(["anna"]))[0][1] is not None
    now_ms = 400 * 86_400_000
    assert await store.read(["anna"]) == [(None, None)]


async def test_memory_bounds_its_dead_letters() -> None:
    store = MemoryStore(1, lambda: 0, dead_letters_max=3)
    await store.dead_letters([(b"%d" % number, "because") for number in range(5)])
    assert store.dead == [(b"%d" % number, "because") for number in range(2, 5)]
