"""The benchmark suite: `python -m bench NAME [--small] [--json FILE]`."""

import engine as engine  # before numpy is loaded: one BLAS thread a process, as in the engine
