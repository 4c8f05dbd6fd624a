"""The ledgers of a batch: looked at together, and as they are after its decisions. engine.ledger has the format."""

from collections.abc import Sequence
from itertools import chain
from struct import Struct
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from engine import contact_rows, ledger, packing
from engine.drafts import Ask, Linked
from engine.ledger import CAS_BYTES, FORM_CONTACTS, Glance, LedgerError, Trial
from engine.lifecycle import OPEN
from engine.limits import LEDGER_DECISIONS_MAX
from engine.packing import LOOK_EPOCH, LOOK_OK, LOOK_REPEATED, joined, look, pack_ledgers
from engine.places import Places
from features import Offset

OPEN_STAGES: Final = sum(1 << stage for stage in OPEN)
"""The stages of open offers as bits."""
_TRIAL: Final = Struct("<Qq")

Ints = NDArray[np.int64]

assert (ledger.DECISION_BYTES, ledger.OFFER_BYTES, CAS_BYTES) == (packing.DECISION, packing.OFFER, packing.HEADER)
assert (contact_rows.SECTION.size, contact_rows.ROW.size) == (packing.SECTION, packing.ROW)
assert (contact_rows.FORMER_ROWS.itemsize, contact_rows.GROUPED) == (packing.FORMER_ROW, packing.GROUPED)


class Ledgers(Sequence[Glance]):
    """What decisions must know of B ledgers. What few of them ask for is read when they do."""

    def __init__(
        self, found: Sequence[bytes | None], hashes: Ints, times_ms: Ints, linked: Sequence[Linked] = ()
    ) -> None:
        """`hashes` are those of the request ids, `linked` has the ledgers of the names linked to each customer."""
        self.found = list(found)
        """Each ledger, None where there is none or it is damaged: whoever has a damaged one begins anew."""
        self.octets, self.ends = joined([data or b"" for data in found])
        self.hashes, self.times_ms = hashes, times_ms
        seen = look(self.octets, self.ends, hashes).tolist()
        self.epochs: list[int] = [row[LOOK_EPOCH] for row in seen]
        self.damaged = [not row[LOOK_OK] for row in seen]
        self.repeated = {
            at: Offset(*row[LOOK_REPEATED + 1 :]) for at, row in enumerate(seen) if row[LOOK_REPEATED]
        }
        """Positions of the decisions that were the answers to the same requests."""
        if any(self.damaged):
            self.found = [None if bad else data for data, bad in zip(found, self.damaged, strict=True)]
            self.octets, self.ends = joined([data or b"" for data in self.found])
        self._linked = linked
        self._glances: dict[int, Glance] = {}

    def __len__(self) -> int:
        return len(self.found)

    @overload
    def __getitem__(self, at: int) -> Glance: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Glance]: ...
    def __getitem__(self, at: int | slice) -> Glance | Sequence[Glance]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        if at >= len(self.found):
            raise IndexError(at)
        glance = self._glances.get(at)
        if glance is None:
            glance = ledger.glance(self.found[at], int(self.hashes[at]) % 2**64, int(self.times_ms[at]))
            if self._linked and self._linked[at]:
                glance = glance._replace(linked=_begun_elsewhere(self._linked[at], int(self.times_ms[at])))
            self._glances[at] = glance
        return glance

    def only(self, places: Sequence[int]) -> "Ledgers":
        """Those at these places."""
        linked = [self._linked[at] for at in places] if self._linked else ()
        some = Ledgers([self.found[at] for at in places], self.hashes[places], self.times_ms[places], linked)
        some.damaged = [self.damaged[at] for at in places]
        return some

    def begun_elsewhere(self, at: int) -> bool:
        """Whether offers may be open under names linked to a customer."""
        return bool(self._linked and self._linked[at])

    def opened(
        self,
        places: Places,
        picks: NDArray[np.int16],
        keys: Ints,
        trials: Sequence[Sequence[Trial]] = (),
        contacts: Sequence[bytes] | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """(head, tail) of each with a decision added, around the 12 bytes of the position that it will get.

        `trials` are the answers that explored as they are after this decision, `contacts` the sections of the
        contacts; None: those that the ledgers have stay as they are.
        """
        if contacts is None:
            contacts = [
                _carried(self[at]) if data and data[0] == FORM_CONTACTS else b"" for at, data in enumerate(self.found)
            ]
        tried = [b"".join([_TRIAL.pack(*trial) for trial in some]) for some in trials]
        data, ends = pack_ledgers(
            self.octets,
            self.ends,
            self.times_ms,
            self.hashes,
            places.counts,
            picks,
            places.window_ends_ms,
            keys,
            *joined(tried or [b""] * len(self)),
            *joined(list(contacts)),
            LEDGER_DECISIONS_MAX,
            OPEN_STAGES,
        )
        whole = data.tobytes()
        cuts = ends.tolist()
        starts = chain([0], (end for _, end in cuts))
        return [(whole[start:middle], whole[middle:end]) for start, (middle, end) in zip(starts, cuts, strict=False)]


def hashes_of(asks: Sequence[Ask]) -> Ints:
    """(B,) hashes of the request ids, as they are in compiled code: signed."""
    return np.fromiter((ask.request_hash for ask in asks), np.uint64, len(asks)).view(np.int64)


def _carried(seen: Glance) -> bytes:
    """The contacts of a ledger that nobody counts them in any more."""
    assert seen.contacts is not None
    return contact_rows.section(seen.contact_clock_ms, contact_rows.placed(seen.contacts, seen.newest))


def _begun_elsewhere(
    linked: Linked, now_ms: int
) -> tuple[tuple[int, Sequence[tuple[Offset, int, int, int, int]]], ...]:
    """(partition, open offers) of names linked to a customer."""
    found = []
    for partition, data in linked:
        try:
            found.append((partition, ledger.glance(data, 0, now_ms).open_offers))
        except LedgerError:
            continue
    return tuple(found)
