"""The environment that has the other learners."""

from pathlib import Path
from typing import Final

from bench import peerenv

VERSIONS: Final = {
    "vowpalwabbit": "9.11.9",
    "mabwiser": "2.7.4",
    "river": "0.26.1",
    "numpy": "2.4.6",
    "scikit-learn": "1.9.1",
}


class PeersMissing(peerenv.PeerMissing):
    """There are no other learners to measure, for a reason that its text tells."""


def interpreter(*, make: bool) -> Path:
    """Python of the environment; made if `make`. Raises PeersMissing."""
    name = f"learners-{VERSIONS['vowpalwabbit']}-{VERSIONS['mabwiser']}-{VERSIONS['river']}"
    title = ", ".join(f"{package} {version}" for package, version in VERSIONS.items())
    return peerenv.interpreter(name, title, VERSIONS, PeersMissing, make=make)
