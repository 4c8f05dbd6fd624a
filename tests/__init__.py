"""The tests. What several folders share stands here; each folder's own in its conftest.py."""

import engine as engine  # before numpy is loaded: one BLAS thread a process, as in the engine
