"""Generates the `opportune.v1` stubs from proto/ into a folder, the repository's own by default.

The stubs are committed; tests/test_stubs.py generates them afresh and compares.
"""

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Write `opportune/v1/*_pb2*.py[i]` below `out`. Raises SystemExit with protoc's status if it fails."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("opportune/v1/*.proto"))
    # mypy-protobuf's plugin lies beside the interpreter, which need not be on PATH.
    plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--plugin=protoc-gen-mypy_grpc={plugin}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out={out}",
            *files,
        ]
    )
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO.parent)
