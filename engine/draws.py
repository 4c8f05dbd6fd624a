"""Which decisions were drawn by dice of their own.

The dice are those of a person and a state: until an event comes or an outcome is reported, whoever asks again has the
same ones and gets the same answer. So a repetition is no draw. Worse, which decisions are repeated depends on what came
of the first: a yes throws the dice anew, silence does not. Weighing a repetition by its propensity, as if it had been
drawn, therefore counts the answers that displeased more often than those that pleased. What is estimated from
propensities rests on the first decision of each seed alone; given all that was before, that one was a draw.
"""

from array import array
from zlib import crc32

from engine.limits import DRAWS_KEPT_ENTRIES_MAX
from engine.record import DecisionRecord


class Draws:
    """Tells repetitions in a stream of records from the last seed of each customer.

    Bounded: customers share DRAWS_KEPT_ENTRIES_MAX places. Where two take turns in one, repetitions pass as draws.
    """

    def __init__(self) -> None:
        self._last = array("Q", bytes(8 * DRAWS_KEPT_ENTRIES_MAX))

    def is_fresh(self, record: DecisionRecord) -> bool:
        """Whether no decision before had the same dice, or nothing was left to them. In the order of the log."""
        if not record.by_chance:
            return True
        place = crc32(record.customer.encode()) % DRAWS_KEPT_ENTRIES_MAX
        known, self._last[place] = self._last[place], record.seed
        return known != record.seed
