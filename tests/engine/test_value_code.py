"""Rows of the value matrix come back bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from engine.packing import cut
from engine.valuecode import ValueCodeError, decoded, packed_rows

SOME = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.floats(allow_nan=False, width=32),
    st.integers(-40_000, 40_000).map(float),
    st.just(-0.0),
)


def rows_of(values: np.ndarray) -> list[bytes]:
    return cut(*packed_rows(values))


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=SOME))
def test_rows_come_back_bit_for_bit(values: np.ndarray) -> None:
    values[np.isnan(values)] = np.nan
    again = decoded(rows_of(values), values.shape[1])
    assert again.tobytes() == values.tobytes()


def test_small_numbers_take_two_bytes_and_missing_ones_none() -> None:
    [row] = rows_of(np.array([[3.0, np.nan, -7.0, 0.5, 0.1]]))
    assert len(row) == 2 + 2 + 0 + 2 + 4 + 8


@pytest.mark.parametrize("spoil", [lambda row: row[:-1], lambda row: row + b"\0", lambda row: b""])
def test_a_row_that_does_not_fit_is_named(spoil: object) -> None:
    good, bad = rows_of(np.array([[1.0, 2.5], [3.0, 1e-9]]))
    with pytest.raises(ValueCodeError, match="row 1 of"):
        decoded([good, spoil(bad)], 2)  # type: ignore[operator]
