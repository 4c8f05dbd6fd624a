"""An environment of its own for what we are compared with: made on first use, versions fixed.

A peer is no dependency of the project, and its own would clash with ours.
"""

import os
import shutil
import subprocess
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

INSTALL_S_MAX: Final = 900
_COMPLETE: Final = "complete"


class PeerMissing(Exception):
    """There is no peer to measure, for a reason that its text tells."""


def interpreter(name: str, title: str, versions: Mapping[str, str], missing: type[PeerMissing], *, make: bool) -> Path:
    """Python of an environment with these packages; made if `make`. Raises `missing`, in whose text is the title.

    Args:
        name: of its folder among the caches.
        title: what people call what is in it.
        versions: of the packages by name, extras included.
        missing: the error to raise.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "opportune" / name
    python = folder / "bin" / "python"
    if (folder / _COMPLETE).exists() and python.exists():
        return python
    if not make:
        raise missing(f"there is no environment with {title} yet: the full benchmark makes it")
    print(f"Making an environment with {title} in {folder}, once: up to 600 MB, some minutes.", flush=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, *(f"{package}=={version}" for package, version in versions.items())]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
        (folder / _COMPLETE).touch()  # a half-made one is made anew
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no reason given"]
        raise missing(f"{title} could not be installed: {last[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise missing(f"{title} could not be installed: {error}") from error
    return python
