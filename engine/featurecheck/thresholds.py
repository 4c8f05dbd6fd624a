"""Every number that makes a figure a finding, and every bound on what is read for it. Shares are of 1.

NOTE is told and changes nothing else; WARNING makes the exit code 1.
"""

from typing import Final

from engine.limits import EVENT_LOG_ENTRIES_MAX

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS

# --- how much is read -----------------------------------------------------------------------------------------------
CUSTOMERS_SAMPLED: Final = 10_000
"""Customers whose features are read, unless `--sample` says otherwise."""
CUSTOMERS_SAMPLED_MAX: Final = 100_000
"""512 features of so many customers are 400 MB."""
EVENTS_READ_MAX: Final = 1_000_000
"""A longer event log is read by whole partitions, which are a sample of the customers, until this is reached."""
DECISIONS_READ_MAX: Final = 1_000_000
"""Likewise of entries of the decision log."""
DECISIONS_COMPARED_MAX: Final = 100_000
"""Of the decisions read so many, evenly in order of the log, are looked at for drift."""
LETTERS_READ_MAX: Final = 20_000
"""Newest dead letters that are looked at."""
PATTERNS_MAX: Final = 100
"""Different (type, reason) of dead letters; further ones are counted together."""
VALUES_NAMED_MAX: Final = 5
"""Unknown values of an attribute that are named."""
UNKNOWN_VALUES_MAX: Final = 1_000
"""Different unknown values of an attribute that are counted apart."""

# --- features, in the sample of customers ---------------------------------------------------------------------------
CUSTOMERS_MIN: Final = 100
"""With fewer customers that have a value, its distribution is shown and not judged."""
MISSING_SHARE_NOTE: Final = 0.5
MISSING_SHARE_WARN: Final = 0.99
"""Nearly nobody has it: as an input it is dead weight."""
CLIPPED_SHARE_NOTE: Final = 0.01
CLIPPED_SHARE_WARN: Final = 0.05
"""Customers beyond `input.range` look alike to the model."""

# --- records --------------------------------------------------------------------------------------------------------
DUPLICATE_SHARE_NOTE: Final = 0.01
DUPLICATE_SHARE_WARN: Final = 0.1
LATE_SHARE_NOTE: Final = 0.001
LATE_SHARE_WARN: Final = 0.01
"""Of events folded, those that some window could no longer take."""
OLD_LAYOUT_SHARE_WARN: Final = 0.05
"""Records of earlier features; they are rewritten at the customer's next event."""

# --- event types, in the event log ----------------------------------------------------------------------------------
EVENTS_MIN: Final = 30
"""With fewer events of a type its rhythm is not judged."""
SILENCE_TIMES_LONGEST: Final = 2.0
SILENCE_TIMES_USUAL: Final = 10.0
"""A type has stopped when it is silent for longer than both: times its longest silence before, times its median one."""
SILENCE_MS_MIN: Final = _HOUR_MS
GAP_TIMES_LONG: Final = 6.0
"""A silence is a gap when it is so many times the median of the ten longest: nights and weekends are not."""
GAP_LONGEST_COMPARED: Final = 10
GAP_RECENT_MS: Final = 7 * _DAY_MS
"""A gap that ended earlier is a note: it cannot be mended by now."""
LATE_ARRIVAL_SHARE_NOTE: Final = 0.01
LATE_ARRIVAL_SHARE_WARN: Final = 0.05
"""Events of a type that arrive when the shortest window of a feature on them is over."""
AHEAD_MS: Final = 1_000
"""An event that is of a time so much after its arrival was taken by a server whose clock is ahead of the store's; that
of a producer shows in the metric opportune_events_ahead."""
AHEAD_SHARE_NOTE: Final = 0.01
UNKNOWN_SHARE_NOTE: Final = 0.001
UNKNOWN_SHARE_WARN: Final = 0.01
"""Events whose text is none of the declared values: the feature is missing then."""

# --- dead letters ---------------------------------------------------------------------------------------------------
REJECTED_RECENT_MS: Final = 7 * _DAY_MS
"""Refused events are held against accepted ones of the same time; older ones are notes."""
REJECTED_SHARE_WARN: Final = 0.01

# --- drift of inputs, in the decision log ---------------------------------------------------------------------------
DRIFT_DECISIONS_MIN: Final = 500
"""With fewer decisions drift is not judged."""
DRIFT_DELTA: Final = 0.002
"""Confidence parameter of ADWIN over all columns together: each column gets its part of it (Bonferroni)."""
DRIFT_CHANGES_MAX: Final = 50
"""Changes of one column that are told apart."""
DRIFT_HALF_LIVES: Final = 3
"""A change so many half-lives of the lessons ago is a note: what was learnt before it has faded."""
DRIFT_RECENT_MS: Final = 90 * _DAY_MS
"""The same where lessons do not fade: by then most of what the log holds is usually from after it."""
PSI_NOTE: Final = 0.1
PSI_WARN: Final = 0.25
"""Population stability index: below 0.1 is little, above 0.25 is another population, as is customary."""
PSI_BINS_MAX: Final = 10
PSI_CHANCE_SIGMAS: Final = 4.0
"""What chance gives at most, in standard deviations of a normal distribution: once in thirty thousand samples more."""
PSI_DECISIONS_MIN: Final = 100
"""Fewer decisions on one side of a change are too few for a PSI."""
PSI_PART: Final = 0.25
"""First and last part of the decisions that are compared with each other."""

# A partition of the event log is read whole, or its end, the newest events, would be missed.
assert EVENTS_READ_MAX >= EVENT_LOG_ENTRIES_MAX
assert CUSTOMERS_MIN <= CUSTOMERS_SAMPLED <= CUSTOMERS_SAMPLED_MAX
assert DECISIONS_COMPARED_MAX <= DECISIONS_READ_MAX
