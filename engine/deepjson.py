"""Values that came as JSON, written again: orjson reads 1,024 levels of nesting and writes 254.

>>> deep = {"a": 1}
>>> for _ in range(300):
...     deep = {"a": deep}
>>> written(deep)[:12], written(deep)[-12:].count(b"}")
(b'{"a":{"a":{"', 12)
"""

from typing import Any, Final

import orjson

LEVELS_KEPT: Final = 64
"""Of a value that is nested too deeply to be written whole. Nobody reads further."""


def written(value: Any) -> bytes:
    """A value as JSON. If it is nested too deeply for that, "…" stands for what is within its LEVELS_KEPT."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_cut(value, LEVELS_KEPT))


def _cut(value: Any, levels: int) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    if not levels:
        return "…"
    if isinstance(value, list):
        return [_cut(item, levels - 1) for item in value]
    return {name: _cut(item, levels - 1) for name, item in value.items()}
