"""The weights of earlier policies, to explain what they decided.

A mean column of an offer takes 4 bytes an input; the covariances that make up 97 % of a policy are not kept. Versions
share the columns of offers that did not change between them. When the room is used up the older half is thinned out:
of the versions there, the one goes whose neighbours are closest together in proportion to their age. So the newest half
is complete, and the distance between the others grows as they get older.
"""

import struct
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import is_not
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import orjson

from engine.limits import BELIEFS_KEPT_BYTES_MAX
from models import CheckpointError, Policy

Floats32 = npt.NDArray[np.float32]

_VERSION_BYTES: Final = 200
"""What a version takes beside its columns, about."""
_COLUMN_BYTES: Final = 33
"""What Python adds to the bytes of a column."""
_MAGIC: Final = b"OPKB"
_HEAD: Final = struct.Struct("<4sII")
"""Magic, CRC-32 of all after these eight bytes, bytes of the JSON head."""


@dataclass(frozen=True, eq=False)
class Belief:
    """What a policy expected of customers: enough for means, not for how sure it was.

    Args:
        version: number of the policy.
        transform_version: the transform whose vectors it scores.
        offers: the n offers; column j of the weights is offers[j].
        weights: (d, n) float32, `Policy.mean_weights`.
        average: (d,) mean of x over the lessons; None where that is not known.
    """

    version: int
    transform_version: int
    offers: tuple[str, ...]
    weights: Floats32
    average: tuple[float, ...] | None
    lessons: tuple[float, ...] | None = None
    """(n,) what the belief about each offer rests on; None where that is not known."""
    curve: tuple[float, ...] = ()
    """What estimates come to, see models.calibration; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class _Version:
    columns: tuple[bytes, ...]
    """Weights and, last, lessons of each offer."""
    average: bytes
    """float64; empty where it is not known."""
    curve: bytes
    """Likewise."""


class KeptBeliefs:
    """The weights of the policies that one server had in service, within `bytes_max`."""

    def __init__(self, bytes_max: int = BELIEFS_KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._transform_version = 0
        self._offers: tuple[str, ...] = ()
        self._versions: list[_Version] = []
        self._numbers = array("q")
        """Of the versions: numpy reads it as it is, so that thinning out twenty thousand takes no milliseconds."""
        self._costs: list[int] = []
        """Bytes of each version that it does not share with the one before."""
        self.bytes = 0
        """About so much memory is used, without what is of earlier offers."""
        self._earlier: KeptBeliefs | None = None
        """Of the offers, or the inputs, that there were before these."""

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def versions(self) -> list[int]:
        """The versions kept, oldest first."""
        return self._numbers.tolist()

    def keep(
        self,
        policy: Policy,
        changed: Collection[str],
        average: Sequence[float] | None,
        curve: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Keep the weights of a policy that begins to serve; `changed` are the offers that the last one had otherwise.

        A version that is not above the last one replaces what is from there on: the store may have been set back.
        """
        if (policy.transform_version, policy.offers) != (self._transform_version, self._offers):
            self._begin_anew(policy)
        last = self._versions[-1] if self._versions else None
        resized = last is None or any(len(column) != 4 * policy.dimension for column in last.columns[:1])
        new = [at for at, offer in enumerate(policy.offers) if resized or offer in changed]
        columns = list(last.columns) if last is not None else [b""] * len(policy.offers)
        rows = np.vstack([policy.mean_weights[:, new], policy.lessons[new]]).T
        for at, row in zip(new, np.ascontiguousarray(rows), strict=True):
            columns[at] = row.tobytes()
        while self._versions and self._numbers[-1] >= policy.version:
            self._let_go(len(self._versions) - 1)
        mean = np.array([] if average is None else average, np.float64).tobytes()
        if last is not None and mean == last.average:
            mean = last.average
        self._versions.append(_Version(tuple(columns), mean, b"" if curve is None else curve.tobytes()))
        self._numbers.append(policy.version)
        self._costs.append(self._cost(len(self._versions) - 1))
        self.bytes += self._costs[-1]
        self._thin_out(self._bytes_max - (self._earlier.bytes if self._earlier is not None else 0))

    def _thin_out(self, bytes_max: int) -> None:
        while self.bytes > bytes_max and len(self._versions) > 2:
            self._let_go(surplus(np.frombuffer(self._numbers, np.int64)))

    def _begin_anew(self, policy: Policy) -> None:
        """Another version of the catalogue has other offers or inputs: what was kept of the last one stays, thinner."""
        earlier = KeptBeliefs(self._bytes_max) if self._versions else None
        if earlier is not None:
            earlier._transform_version, earlier._offers = self._transform_version, self._offers
            earlier._versions, earlier._numbers, earlier._costs = self._versions, self._numbers, self._costs
            earlier.bytes = self.bytes
            earlier._thin_out(self._bytes_max // 2)
            self._earlier = earlier
        self._versions, self._numbers, self._costs, self.bytes = [], array("q"), [], 0
        self._transform_version, self._offers = policy.transform_version, policy.offers

    def nearest(self, version: int, transform_version: int) -> Belief | None:
        """The belief of that version or of the nearest one kept; None if none is of that transform."""
        if self._of_earlier(version, transform_version):
            assert self._earlier is not None
            return self._earlier.nearest(version, transform_version)
        if not self._versions or transform_version != self._transform_version:
            return None
        at = nearest_of(self._numbers, version)
        found = self._versions[at]
        columns = np.array([np.frombuffer(column, np.float32) for column in found.columns], np.float32).T
        average = tuple(np.frombuffer(found.average).tolist()) or None
        lessons = tuple(columns[-1].tolist())
        curve = tuple(np.frombuffer(found.curve).tolist())
        return Belief(self._numbers[at], transform_version, self._offers, columns[:-1], average, lessons, curve)

    def curve(self, version: int, transform_version: int) -> npt.NDArray[np.float64]:
        """The calibration of that version or of the nearest one kept; empty if none is of that transform.

        The prior, version 0, has none.
        """
        if self._of_earlier(version, transform_version):
            assert self._earlier is not None
            return self._earlier.curve(version, transform_version)
        if not version or not self._versions or transform_version != self._transform_version:
            return np.zeros(0)
        return np.frombuffer(self._versions[nearest_of(self._numbers, version)].curve)

    def _of_earlier(self, version: int, transform_version: int) -> bool:
        """Whether a version is rather to be found among those of the earlier offers."""
        earlier = self._earlier
        if earlier is None or not earlier._versions or transform_version != earlier._transform_version:
            return False
        if not self._versions or transform_version != self._transform_version:
            return True
        return version < self._numbers[0] and version <= earlier._numbers[-1]

    def _let_go(self, at: int) -> None:
        del self._versions[at], self._numbers[at]
        self.bytes -= self._costs.pop(at)
        if at < len(self._versions):
            # What it shared with the one that is gone is its own now.
            self.bytes -= self._costs[at]
            self._costs[at] = self._cost(at)
            self.bytes += self._costs[at]

    def _cost(self, at: int) -> int:
        """Bytes of a version that it does not share with the one before."""
        version = self._versions[at]
        columns, mean = version.columns, version.average
        before = self._versions[at - 1] if at else None
        own = len(columns) if before is None else sum(map(is_not, columns, before.columns))
        size = len(columns[0]) + _COLUMN_BYTES if columns else 0
        shared = before is not None and mean is before.average
        beside = len(version.curve) + (0 if shared else len(mean) + _COLUMN_BYTES)
        return _VERSION_BYTES + 8 * len(columns) + own * size + beside


def nearest_of(versions: Sequence[int], version: int) -> int:
    """Index of the version closest to `version`, the older one of two; `versions` ascend and are not empty.

    >>> [nearest_of([3, 7, 9], version) for version in (1, 4, 5, 6, 8, 20)]
    [0, 0, 0, 1, 1, 2]
    """
    at = bisect_left(versions, version)
    if at == len(versions) or (at and version - versions[at - 1] <= versions[at] - version):
        return at - 1
    return at


def surplus(versions: Sequence[int] | npt.NDArray[np.int64]) -> int:
    """Index of the version that is missed least, of three or more that ascend; never one of the newest half.

    >>> surplus([1, 2, 3, 50, 98, 99, 100, 101])  # 3 would leave a larger gap, 98 and later are the newest half
    1
    """
    numbers = np.asarray(versions, np.int64)
    end = max(2, len(numbers) // 2)
    gaps = numbers[2 : end + 1] - numbers[: end - 1]
    return 1 + int((gaps / (numbers[-1] + 1 - numbers[1:end])).argmin())


def pack_belief(policy: Policy, average: Sequence[float] | None, curve: Sequence[float] = ()) -> bytes:
    """The weights of a policy as bytes: 260 bytes an offer at 64 inputs."""
    facts = {
        "version": policy.version, "transform": policy.transform_version, "offers": policy.offers, "average": average,
        "lessons": policy.lessons.tolist(), "curve": curve,
    }  # fmt: skip
    head = orjson.dumps(facts)
    body = head + policy.mean_weights.astype("<f4").tobytes()
    length = struct.pack("<I", len(head))
    return _MAGIC + struct.pack("<I", crc32(body, crc32(length))) + length + body


def unpack_belief(data: bytes) -> Belief:
    """Read what `pack_belief` wrote. Raises CheckpointError for bytes that are foreign, cut short or damaged."""
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        raise CheckpointError(f"these {len(data)} bytes are no kept policy")
    _, check, length = _HEAD.unpack_from(data)
    if crc32(data[8:]) != check:
        raise CheckpointError("a kept policy is damaged: its CRC-32 does not fit the content")
    facts = orjson.loads(data[_HEAD.size : _HEAD.size + length])
    offers, average = tuple(facts["offers"]), facts["average"]
    weights = np.frombuffer(data, "<f4", offset=_HEAD.size + length).reshape(-1, len(offers)).astype(np.float32)
    lessons = tuple(facts["lessons"]) if "lessons" in facts else None  # of an earlier release
    average = None if average is None else tuple(average)
    curve = tuple(facts.get("curve", ()))
    return Belief(facts["version"], facts["transform"], offers, weights, average, lessons, curve)
