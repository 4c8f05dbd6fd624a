"""Distances on the earth."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

EARTH_KM: Final = 6_371.0088
"""Mean radius."""


def distance_km(latitude1: float, longitude1: float, latitude2: float, longitude2: float) -> float:
    """Kilometres between two places given in degrees, along the surface of a sphere; NaN where one is not known.

    haversine: d = 2 R asin √(sin²(Δφ/2) + cos φ₁ cos φ₂ sin²(Δλ/2))

    >>> round(distance_km(50.0755, 14.4378, 49.1951, 16.6068))
    184
    """
    first, second = math.radians(latitude1), math.radians(latitude2)
    if not (math.isfinite(first) and math.isfinite(second) and math.isfinite(longitude1 - longitude2)):
        return math.nan
    north = math.sin((second - first) / 2.0) ** 2
    east = math.sin(math.radians(longitude2 - longitude1) / 2.0) ** 2
    return 2.0 * EARTH_KM * math.asin(math.sqrt(min(1.0, max(0.0, north + math.cos(first) * math.cos(second) * east))))


class Nearest:
    """Some places, of which the nearest is asked for: hundreds of branches cost as much as a few."""

    def __init__(self, places: Sequence[tuple[float, float]]) -> None:
        """`places` are (latitude, longitude) in degrees."""
        self._latitudes, self._longitudes = np.radians(np.array(places, dtype=np.float64).reshape(-1, 2)).T
        self._shrunk = np.cos(self._latitudes)

    def km(self, latitude: float, longitude: float) -> float:
        """Kilometres to the nearest place."""
        here, east = math.radians(latitude), math.radians(longitude)
        north = np.sin((self._latitudes - here) / 2.0) ** 2
        share = north + math.cos(here) * self._shrunk * np.sin((self._longitudes - east) / 2.0) ** 2
        return 2.0 * EARTH_KM * math.asin(math.sqrt(min(1.0, max(0.0, float(np.min(share))))))
