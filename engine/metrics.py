"""All metrics, in one place. Each process has its own; `/metrics` shows those of the process that answers."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

DECISIONS: Final = Counter("opportune_decisions", "Decisions answered", ["degraded"])
DECISIONS_REPEATED: Final = Counter("opportune_decisions_repeated", "Decide calls that repeated a request id")
DECIDE_CONFLICTS: Final = Counter("opportune_decide_conflicts", "Decisions made again, the ledger having changed")
DECIDE_BATCH_SIZE: Final = Histogram(
    "opportune_decide_batch_size", "Decisions of one batch", buckets=(1, 2, 4, 8, 16, 32, 64)
)
DECIDE_BATCH_SECONDS: Final = Histogram(
    "opportune_decide_batch_seconds",
    "Reading state to answering, of one batch, in seconds",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0),
)
OUTCOMES: Final = Counter("opportune_outcomes", "Outcomes recorded", ["stage"])
OUTCOMES_DUPLICATE: Final = Counter("opportune_outcomes_duplicate", "Outcomes that had been recorded before")
EVENTS: Final = Counter("opportune_events", "Events recorded", ["type"])
EVENTS_REJECTED: Final = Counter("opportune_events_rejected", "Events refused and kept as dead letters")
EVENTS_AHEAD: Final = Counter(
    "opportune_events_ahead", "Events of a time ahead of the server's clock, taken as of their arrival"
)
LINKS_ASKED: Final = Counter("opportune_links", "Links of identities to customers that calls and events asked for")
LINKS_REFUSED: Final = Counter("opportune_links_refused", "Links and entities refused and kept as dead letters")
LINKS_SKIPPED: Final = Counter("opportune_links_skipped", "Links not asked for, the customer or the server being full")
IDENTITY_CONFLICTS: Final = Counter(
    "opportune_identity_conflicts", "Calls and events whose identities belong to different customers"
)
REFUSED: Final = Counter("opportune_refused", "Calls refused, by gRPC status", ["status"])
POLICY_VERSION: Final = Gauge("opportune_policy_version", "Version of the policy in service")
CONFIG_ACTIVE: Final = Gauge("opportune_config_active", "1: this version of the configuration serves here", ["version"])
CONFIG_SWAPPED: Final = Gauge(
    "opportune_config_swapped_unixtime", "When the configuration that serves was swapped in, Unix time"
)
CONFIG_REFUSED: Final = Gauge(
    "opportune_config_refused", "1 while the version in force cannot be served with here, and an earlier one serves"
)
POLICY_SWAPPED: Final = Gauge(
    "opportune_policy_swapped_unixtime", "When the policy in service was swapped in, Unix time"
)
EVENTS_WAITING: Final = Gauge("opportune_events_waiting", "Events of the fullest partition that wait to be folded")
LESSONS: Final = Gauge("opportune_lessons", "Lessons taught or taken back")
LET_GO: Final = Gauge(
    "opportune_instances_let_go", "Offers no longer followed because there were too many: their no is not learnt"
)
LESSONS_LOST: Final = Gauge("opportune_lessons_lost", "Lessons that could not be taught")
EXPLORATION_SHARE: Final = Gauge(
    "opportune_exploration_share", "Share of decisions left to chance, mean of 1 - propensity; NaN: not known yet"
)
EXPLORATION_STOPPED: Final = Gauge("opportune_exploration_stopped", "1 while the policy as a whole does not explore")
OFFERS_NOT_EXPLORED: Final = Gauge("opportune_offers_not_explored", "Offers that are not explored any more")
OFFERS_DRIFTED: Final = Gauge("opportune_offers_drifted", "Offers whose acceptance was found to have changed recently")
OFFER_DRIFT: Final = Gauge("opportune_offer_drift", "Of these, acceptance after the change less before", ["offer"])
OFFER_NOT_EXPLORED: Final = Gauge("opportune_offer_not_explored", "1: this offer is not explored any more", ["offer"])
BUDGET_UNITS: Final = Gauge(
    "opportune_budget_units", "Units of a budget in its period: confirmed, reserved, leased, free", ["budget", "state"]
)
BUDGET_OVER: Final = Gauge("opportune_budget_over", "Units used beyond the budget, by late acceptances", ["budget"])
BUDGET_PRICE: Final = Gauge("opportune_budget_price", "Shadow price of a unit, in units of the score", ["budget"])
BUDGET_LATE_UNITS: Final = Counter(
    "opportune_budget_late_units", "Units consumed by outcomes that came after their reservation had run out"
)
BUDGET_LEASES_RECLAIMED: Final = Counter(
    "opportune_budget_leases_reclaimed", "Leases of servers that were not heard of any more, taken back"
)
