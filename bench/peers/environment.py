"""The environment that has the other learners: made on first use, its versions fixed."""

import os
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Final

VERSIONS: Final = {
    "vowpalwabbit": "9.11.9",
    "mabwiser": "2.7.4",
    "river": "0.26.1",
    "numpy": "2.4.6",
    "scikit-learn": "1.9.1",
}
INSTALL_S_MAX: Final = 900
_COMPLETE: Final = "complete"


class PeersMissing(Exception):
    """There are no other learners to measure, for a reason that its text tells."""


def environment_folder() -> Path:
    """Where the environment is, or would be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "opportune" / f"learners-{VERSIONS['vowpalwabbit']}-{VERSIONS['mabwiser']}-{VERSIONS['river']}"


def interpreter(*, make: bool) -> Path:
    """Python of the environment; made if `make`. Raises PeersMissing."""
    folder = environment_folder()
    python = folder / "bin" / "python"
    if (folder / _COMPLETE).exists() and python.exists():
        return python
    named = ", ".join(f"{name} {version}" for name, version in VERSIONS.items())
    if not make:
        raise PeersMissing(f"there is no environment with {named} yet: the full benchmark makes it")
    print(f"Making an environment with {named} in {folder}, once.", flush=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, *(f"{name}=={version}" for name, version in VERSIONS.items())]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
        (folder / _COMPLETE).touch()  # a half-made one is made anew
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no reason given"]
        raise PeersMissing(f"other learners could not be installed: {last[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeersMissing(f"other learners could not be installed: {error}") from error
    return python
