"""The benchmark suite: `python -m bench NAME [--small] [--json FILE]`."""
