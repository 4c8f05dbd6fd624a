"""Prices by themselves: they rise when use runs ahead, fall when it lags, and go on where another server left off."""

from hypothesis import given
from hypothesis import strategies as st

from engine.budgets_schema import Budget
from engine.pacing import BINS, PRICE_MAX, Pace, Paced, Traffic

EVEN = Budget(id="b", units=1_000, per="day", pace="even")


def test_a_price_follows_use_against_traffic() -> None:
    def price(pace: Pace, used: int, share: float) -> Pace:
        return pace.moved(scale=2.0, units=1_000, used=used, share=share, even=True)

    ahead = price(Pace(), 200, 0.1)
    assert ahead.price > 0
    further = price(ahead, 400, 0.2)
    assert further.price > ahead.price
    behind = price(further, 400, 0.9)
    assert behind.price == 0, "never below zero without a minimum"
    assert price(Pace(), 0, 0.5).price == 0


def test_a_lag_behind_the_minimum_is_a_bonus_within_bounds() -> None:
    pace = Pace().moved(scale=2.0, units=1_000, used=0, share=0.5, even=False, minimum=600)
    assert -2.0 <= pace.price < 0
    assert Pace().moved(scale=2.0, units=1_000, used=600, share=0.5, even=False, minimum=600).price == 0
    assert Pace().moved(scale=2.0, units=0, used=0, share=0.5, even=True).price == 0


@given(st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 1)), max_size=50))
def test_whatever_is_used_the_price_keeps_its_bounds(path: list[tuple[int, float]]) -> None:
    pace = Pace()
    for used, share in path:
        pace = pace.moved(scale=3.0, units=1_000, used=used, share=share, even=True, minimum=500)
        assert -3.0 <= pace.price <= 3.0 * PRICE_MAX
        assert 0 <= pace.push <= 1


def test_traffic_is_that_of_the_period_before() -> None:
    traffic = Traffic()
    for hour in range(24):
        traffic.add(hour / 24, 10.0 if hour >= 12 else 0.0)
    after = traffic.next()
    assert after.share(0.5) < 0.05
    assert abs(after.share(0.75) - 0.5) < 0.05
    assert (after.share(0.0), after.share(1.0)) == (0.0, 1.0)
    assert after.next().before == after.before, "a period without anybody teaches nothing"
    shares = [after.share(at / 100) for at in range(101)]
    assert shares == sorted(shares)


def test_another_server_goes_on_with_the_same_price() -> None:
    first = Paced().moved(("b@1", 0, 1_000), 100, 50, scale=2.0, budget=EVEN, used=400)
    again = Paced.unpack(first.pack())
    assert again.pace == first.pace
    assert (again.traffic.before, again.traffic.counts) == (first.traffic.before, first.traffic.counts)
    assert Paced.unpack(None).pace == Pace()


def test_a_new_period_begins_with_the_price_of_the_old_one() -> None:
    paced = Paced()
    for now_ms in range(100, 1_000, 100):
        paced = paced.moved(("b@1", 0, 1_000), now_ms, 50, scale=2.0, budget=EVEN, used=min(1_000, now_ms * 2))
    rise = paced.pace.rise
    assert rise > 0
    following = paced.moved(("b@2", 1_000, 2_000), 1_000, 0, scale=2.0, budget=EVEN, used=0)
    assert following.pace.rise == rise
    assert sum(following.traffic.counts) == 0
    assert sum(following.traffic.before) == 450
    assert len(following.traffic.before) == BINS
