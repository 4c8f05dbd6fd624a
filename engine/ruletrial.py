"""How long a rule takes: tried when a configuration is read, so that no decision waits for one.

The size of a rule bounds all of it but patterns, which are compiled whenever they are evaluated. So these have to be
written out, and each is tried alone: of `vip && job.matches(…)` a trial of the whole would see only some customers.
"""

import re
import time
from contextlib import suppress
from typing import Final

import cel

from engine.limits import RULE_EVALUATION_MS_MAX
from features import ExpressionError

_TEXT: Final = (
    r"[rR]'[^'\n]*'|[rR]\"[^\"\n]*\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\""
)
_MATCHES: Final = re.compile(r"\bmatches\b")
_PATTERN: Final = re.compile(rf"\bmatches\s*\(\s*(?:\w+\s*,\s*)?({_TEXT})\s*\)")
_TRIALS: Final = 4


def try_patterns(expression: str, wordless: str) -> None:
    """Try the patterns of a rule; `wordless` is the rule without its texts. Raises ExpressionError, or as CEL does."""
    patterns = _PATTERN.findall(expression)
    if len(_MATCHES.findall(wordless)) != len(patterns):
        raise ExpressionError("matches: expected a pattern that is written out, in one text")
    for pattern in patterns:
        program = cel.compile(f"''.matches({pattern})")
        program.execute(cel.Context())
        refuse_slow(f"the pattern {pattern}", program, cel.Context())


def refuse_slow(what: str, program: cel.Program, context: cel.Context) -> None:
    """Raise ExpressionError if an evaluation takes too much of a processor; the fastest of a few counts."""
    fastest_ms = float("inf")
    for _ in range(_TRIALS):
        began = time.thread_time()
        with suppress(Exception):
            program.execute(context)
        fastest_ms = min(fastest_ms, (time.thread_time() - began) * 1e3)
        if fastest_ms <= RULE_EVALUATION_MS_MAX:
            return
    most = f"at most {RULE_EVALUATION_MS_MAX} are allowed"
    raise ExpressionError(f"{what} takes {fastest_ms:,.0f} ms to be evaluated, {most}")
