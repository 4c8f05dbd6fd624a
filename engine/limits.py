"""Every limit of the engine, with its unit in its name, and the relations between them.

A queue, batch, wait, window or key without a limit here does not exist. The relations at the end are checked when the
module is imported, so an edit that breaks one cannot start.
"""

from typing import Final

# --- what a caller may send -----------------------------------------------------------------------------------------
ID_BYTES_MAX: Final = 64
"""Customer, request, outcome, event and catalogue ids."""
SOURCE_BYTES_MAX: Final = 128
CUSTOMER_BYTES_MAX: Final = ID_BYTES_MAX + 1 + SOURCE_BYTES_MAX
"""Of the name of an anonymous customer: the kind of an identity, an equals sign and its value."""
"""Source of an event and value of an identity."""
TEXT_BYTES_MAX: Final = 256
"""One text value of a context or an attribute."""
CONTEXT_ENTRIES_MAX: Final = 64
CONTEXT_BYTES_MAX: Final = 16 * 1024
"""All facts of a conversation together, as JSON: a record keeps them."""
IDENTITIES_MAX: Final = 8
PURPOSES_MAX: Final = 16
SLATE_MAX: Final = 30
EVENTS_PER_CALL_MAX: Final = 1_000
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""A larger gRPC message or HTTP body is refused before it is parsed."""
MISFIT_LOOK_ENTRIES_MAX: Final = 10_000
"""Entries of a list or a map in JSON among which the one that does not fit is looked for."""
CONNECTION_CALL_ENTRIES_MAX: Final = 1_024
"""gRPC calls under way on one connection; one more is refused, and clients send it when another has ended."""
CALL_WINDOW_BYTES: Final = MESSAGE_BYTES_MAX + 64 * 1024
"""What a caller may send in one call before any of it is read: a message of the largest kind, and a little more."""
CONNECTION_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""What may be on its way on one connection."""
UNFINISHED_BYTES_MAX: Final = 256 * 1024 * 1024
"""What a server holds of messages of which a part has come, and of answers of which a part was sent."""
HELD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of these, what is held for one connection."""
HEADER_BYTES_MAX: Final = 16 * 1024
"""All headers of a call, packed and unpacked."""
HEADER_BLOCKS_KEPT_ENTRIES_MAX: Final = 256
"""Headers that a connection remembers the meaning of, as most calls send the same again."""
HEADER_BLOCK_KEPT_BYTES_MAX: Final = 1_024
ROUTES_KEPT_ENTRIES_MAX: Final = 256
"""Headers that a server remembers the way of, however long their callers wait: 4 MiB at most."""
CONNECTION_QUEUE_MAX: Final = 1_024
"""New connections that the kernel keeps until the server looks at them."""
PREFACE_MS_MAX: Final = 10_000
"""How long a new connection may take to say that it speaks HTTP/2."""
CALL_STALL_MS_MAX: Final = 10_000
"""How long a gRPC call waits for its peer to get on: with a message that has not come whole, or with reading an answer.
It may be twice that, as calls are looked at once in so long."""
CALL_STALL_BYTES_MIN: Final = 16 * 1024
"""What has to come of a message in that time, if it is not the rest."""
HTTP_REQUEST_MS_MAX: Final = 10_000
"""How long an HTTP caller may take for the headers of its first request, and for the body of each."""
HTTP_IDLE_MS_MAX: Final = 75_000
"""How long an HTTP connection stays without a whole request. Most proxies hang up after 60 s: they shall be first."""
LEAVE_MS_MAX: Final = 500
"""How long connections of a server that stops may take to hear that it takes no more calls; it does until then."""
GOODBYE_MS_MAX: Final = 1_000
"""How long a connection that broke the protocol may take to hear so and hang up."""
OFFENCE_BURST_ENTRIES_MAX: Final = 1_024
OFFENCE_PER_S_ENTRIES_MAX: Final = 5_000
"""Calls that a connection may take back, and frames without sense that it may send: so many at once, then a second."""
SETTINGS_OFFENCE_TIMES: Final = 16
"""What new settings count for: each takes a walk over all calls."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: nothing later is a time."""

# --- what a configuration may hold ----------------------------------------------------------------------------------
TUNING_STRENGTH_ENTRIES_MAX: Final = 8
TUNING_STEP_ENTRIES_MAX: Final = 16
"""Steps of the exploration strength that travel with the policy."""
TUNING_COPY_ENTRIES_MAX: Final = 200_000
"""Places of the log of which is remembered how often the second learner took them."""
CONFIG_BYTES_MAX: Final = 8 * 1024 * 1024
CONFIG_ENTRIES_MAX: Final = 1_000_000
"""Settings, values and entries of lists of a configuration, what an alias stands for counted each time."""
CONFIG_NESTED_ENTRIES_MAX: Final = 64
"""Lists and mappings within each other, those behind aliases included."""
HASHED_NAME_ENTRIES_MAX: Final = 4_096
"""Texts of one hashed input that explanations may name."""
OFFERS_MAX: Final = 1_000
RULES_MAX: Final = 1_024
RULE_BYTES_MAX: Final = 2_048
RULE_WORD_ENTRIES_MAX: Final = 1_024
"""Names, numbers, texts and signs of one rule."""
RULE_EVALUATION_MS_MAX: Final = 2
"""What a rule may take to be evaluated once, when a configuration is read; a usual one takes a thousandth of that."""
OFFER_GROUP_ENTRIES_MAX: Final = 256
PLACE_ENTRIES_MAX: Final = 4_096
POINTS_RULES_MAX: Final = 64
"""Rules that add points to one offer, and places that are declared of its rate."""
WEIGHT_TIMES_MAX: Final = 1_000_000
"""Times that one lever or weight, and all those of an offer together, may scale what it is worth."""
WEIGHT_RULES_MAX: Final = 64
"""Rules of levers, of context weights or of risk of one offer, and of weights for many offers."""
GUARD_RULES_MAX: Final = 32
QUESTION_OFFERS_MAX: Final = 4
"""Offers that ask for a fact."""
QUESTION_ENTRIES_MAX: Final = 8
"""Answers to one of them: a decision is thought through once for each."""
BUNDLE_OFFERS_MAX: Final = 8
"""Offers that a bundle stands for."""
PARAMETER_ENTRIES_MAX: Final = 8
"""Of one offer."""
PARAMETER_RULES_MAX: Final = 32
PARAMETER_TEXT_BYTES_MAX: Final = 128
QUOTE_PART_BYTES_MAX: Final = 960
"""What a record keeps of the parameters of one offer, as JSON, and again of the features that its treatments tell."""
TREATMENT_TOKEN_ENTRIES_MAX: Final = 16
SAID_TEXT_BYTES_MAX: Final = 256
"""Of one value within a treatment; what is longer is cut."""
FEATURES_MAX: Final = 512
CONTEXT_FACTS_MAX: Final = 64
OBJECTIVE_ENTRIES_MAX: Final = 16
CHALLENGERS_MAX: Final = 8
EXPERIMENT_ENTRIES_MAX: Final = 16
EXPERIMENT_ARM_ENTRIES_MAX: Final = 8
"""Arms of one experiment, the champion's not counted."""
CONTACT_RULES_MAX: Final = 64
"""Caps of a contact policy, and cool-offs."""
CONTACT_WINDOW_MS_MAX: Final = 366 * 86_400_000
"""The longest time that a cap, a cool-off or the half-life of a pressure may ask for."""

BUDGET_ENTRIES_MAX: Final = 64
BUDGET_UNITS_ENTRIES_MAX: Final = 1_000_000_000_000
"""Units of one budget: scripts count exactly up to 2^53."""
VERSIONS_KEPT_ENTRIES_MAX: Final = 10_000
"""Configurations that the history of an engine holds."""
VERSION_TRAIL_ENTRIES_MAX: Final = 50_000
"""What was done with them that the trail remembers, the newest."""
VERSION_NOTE_BYTES_MAX: Final = 1_024
"""Of the note that somebody leaves with one."""
APPROVALS_ENTRIES_MAX: Final = 8
"""Approvals that a configuration may ask for."""

# --- one customer ---------------------------------------------------------------------------------------------------
LEDGER_DECISIONS_MAX: Final = 16
"""Decisions that a customer's ledger remembers: open ones first, then the newest."""
COURSE_ENTRIES_MAX: Final = 32
"""Outcomes of one offer of one decision, instalments and corrections included."""
EXPLORED_ENTRIES_MAX: Final = 64
"""Answers that explored which a customer's ledger remembers, where there is a budget for them."""
CONTACTS_ENTRIES_MAX: Final = 256
"""Contacts that a customer's ledger counts one by one, where there is a contact policy; more of them count together."""
CUSTOMER_KEY_TTL_MS: Final = 400 * 86_400_000
"""State of a customer of whom nothing was heard for this long goes away."""
CUSTOMER_IDENTITIES_MAX: Final = 64
"""Identities and other customer ids linked to one customer, and customers that one identity was linked to."""
ENTITY_ENTRIES_MAX: Final = 32
"""Households, accounts and the like of one customer: of each kind the newest."""
LINEAGE_ENTRIES_MAX: Final = 128
"""Links made and taken back that a customer remembers, the newest."""
LINK_HOPS_MAX: Final = 8
"""Customer ids that are one after the other the same customer; a call follows so many."""
LINK_SETTLE_RETRIES_MAX: Final = 2
"""Batches that a decision with contact policy waits for a name that its customer was told of and that has not moved
yet: ingest tells the one before it writes the other."""
TIMELINE_ENTRIES_MAX: Final = 128
"""Events that a customer's timeline keeps: the newest by event time."""
TIMELINE_BYTES_MAX: Final = 16 * 1024
"""All of them together; the names of attributes, kept once a type of event, come on top."""
TIMELINE_ENTRY_BYTES_MAX: Final = 2 * 1024
"""Attributes of one of them; what comes after is left out."""
TIMELINE_ATTRIBUTE_ENTRIES_MAX: Final = 16
"""Attributes of one type of event that the timeline keeps."""
TIMELINE_PAGE_ENTRIES: Final = 50
"""Entries of an answer if the caller does not say."""
TIMELINE_PAGE_ENTRIES_MAX: Final = 500

# --- the hot path ---------------------------------------------------------------------------------------------------
DECIDE_BATCH_MAX: Final = 64
DECIDE_BATCHES_MAX: Final = 3
"""One computes while the store commits the other."""
DECIDE_QUEUE_MAX: Final = 1_024
"""Requests waiting for a batch; one more is refused with RESOURCE_EXHAUSTED at once."""
DECIDE_STATE_WAIT_MS_MAX: Final = 250
"""How long a decision waits for the state store before it is answered from the fallback list."""
DECIDE_COMMIT_WAIT_MS_MAX: Final = 500
DECIDE_PUBLISH_WAIT_MS_MAX: Final = 500
"""How long a decision that is durable waits for Kafka to have it too, before it is answered from the fallback list."""
KAFKA_AWAY_MS: Final = 1_000
"""After Kafka did not take decisions, further ones are answered from the fallback list for so long, without a wait."""
DECIDE_CONFLICT_RETRIES_MAX: Final = 8
"""Times a decision is made again because another server changed the same customer's ledger."""
DECIDE_BULK_BATCH_MAX: Final = 16
"""Decisions of batches (DecideMany) made together: one batch at a time, and only when nobody waits for a Decide."""
DECIDE_MANY_ENTRIES_MAX: Final = 10_000
"""Customers of one DecideMany call."""
DECIDE_MANY_QUEUE_MAX: Final = 64
"""Of these, how many wait for their decision or to be sent at a time."""
DECIDE_MANY_BATCHES_MAX: Final = 8
"""DecideMany calls under way at a time; one more is refused with RESOURCE_EXHAUSTED at once."""
DECIDE_MANY_WAIT_MS_MAX: Final = 30_000
"""How long one customer of a batch waits for callers of Decide before the answer is RESOURCE_EXHAUSTED."""
BATCH_ID_BYTES_MAX: Final = 48
"""Of a batch and of a list of leads; "batch/ID" is a request id."""
DEADLINE_MARGIN_MS: Final = 20
"""So long before a caller's deadline it gets the fallback list if its decision is not there yet."""
DEADLINE_WATCHED_MS_MAX: Final = 2_000
"""Deadlines further away than this are not watched: every wait of a decision ends before."""
DEADLINE_TICK_MS: Final = 2
"""Deadlines are looked at in steps of this."""
WRITE_WAIT_MS_MAX: Final = 2_000
"""How long Report and Publish wait for the store before they answer UNAVAILABLE."""
WRITES_QUEUED_MAX: Final = 2_048
"""Report and Publish calls under way; one more is refused with RESOURCE_EXHAUSTED at once."""

# --- budgets --------------------------------------------------------------------------------------------------------
BUDGET_LEASE_MS: Final = 4_000
"""A server that was not heard of for this long loses its leases: what it did not use comes back to the others."""
BUDGET_HEARTBEAT_MS: Final = 1_000
BUDGET_LOOK_MS: Final = 50
"""Least time between two looks at whether units run short here."""
BUDGET_DRY_MS: Final = 250
"""Nothing was free: so long before it is asked again, and longer each time that nothing is."""
BUDGET_DRY_MS_MAX: Final = 2_000
BUDGET_IDLE_MS: Final = 750
"""A lease of which nothing was taken for so long is returned when another server has run dry."""
BUDGET_WANTED_ENTRIES_MAX: Final = 64
"""Periods other than the current one of which decisions with a time of their own may ask units."""
BUDGET_ROUNDS_BATCH_MAX: Final = 4
"""Times that those of a batch who came too late for the last units are decided again; then without the budget."""
BUDGET_BUCKETS_ENTRIES_MAX: Final = 64
"""Steps in which the reservations of one budget run out."""

# --- logs -----------------------------------------------------------------------------------------------------------
PARTITIONS: Final = 8
"""Partitions of the event log and of the decision log. Fixed for a data folder when it is made."""
EVENT_LOG_ENTRIES_MAX: Final = 1_000_000
"""Entries kept in one partition of the event log; folded ones beyond go first."""
DECISION_LOG_ENTRIES_MAX: Final = 1_000_000
DEAD_LETTERS_MAX: Final = 100_000
DEAD_LETTER_BYTES_MAX: Final = 4 * 1024
"""Of a refused event in the store: a larger one is kept without what makes it large."""
TOPIC_LETTER_BYTES_MAX: Final = 256 * 1024
"""The same in the topic of dead letters; brokers refuse messages of more than a megabyte."""
EVENT_BACKLOG_MAX: Final = 500_000
"""Events of a partition that may wait for folding; Publish answers RESOURCE_EXHAUSTED beyond."""

# --- ingest and learn -----------------------------------------------------------------------------------------------
INGEST_BATCH_MAX: Final = 1_000
INGEST_BLOCK_MS: Final = 500
KAFKA_LINGER_MS: Final = 5
"""A busy Faust worker lets events gather for this long, so that they share round trips; an idle one takes each."""
KAFKA_COMMIT_MS: Final = 500
"""Least time between two commits of what was folded; so much is delivered again after a crash, and changes nothing."""
KAFKA_SESSION_MS_MAX: Final = 6_000
"""A worker that was not heard of for this long loses its partitions to the others."""
KAFKA_HEARTBEAT_MS: Final = 500
"""With its heartbeat a worker learns that partitions move: all wait for the last to learn it."""
KAFKA_STALL_MS_MAX: Final = 20_000
"""A worker that gets nothing for so long although there is something for it ends and is started again."""
KAFKA_LOOK_MS: Final = 5_000
"""Time between two looks at whether the topics are still the same and whether the worker stalls."""
KAFKA_START_MS_MAX: Final = 30_000
"""How long a process waits for the broker when it starts."""
LEARN_BATCH_MAX: Final = 1_000
LEARN_BLOCK_MS: Final = 100
LEARN_PACE_MS: Final = 50
"""Least time between two looks at a log that is not behind."""
SNAPSHOT_INTERVAL_MS: Final = 150
"""Least time between two pushed snapshots: the policy in service lags an outcome by about this."""
CHECKPOINT_INTERVAL_MS: Final = 10_000
"""After a crash so much of the log is read again. A checkpoint of megabytes holds up decisions for milliseconds."""
INSTANCES_TRACKED_MAX: Final = 500_000
"""Offer instances of one partition that the learner follows; the oldest beyond are let go without a lesson, counted."""
LATE_OUTCOME_MS_MAX: Final = 180 * 86_400_000
"""After its window a decision still accepts outcomes for this long."""

CHALLENGER_DECISIONS_MAX: Final = 50_000
"""Decisions whose windows are open that challengers follow; those that come while there are so many are left out."""
DRAWS_KEPT_ENTRIES_MAX: Final = 1 << 20
"""Customers whose last dice are known to what judges policies while the engine runs, 8 bytes each."""

# --- leads ----------------------------------------------------------------------------------------------------------
LEAD_LISTS_ENTRIES_MAX: Final = 1_000
"""Lists of leads that are known; one more is refused until one of them is over."""
LEAD_LIST_ENTRIES_MAX: Final = 50_000
"""Leads of one list."""
LEAD_CALL_ENTRIES_MAX: Final = 1_000
"""Leads of one Add or of one page."""
LEAD_PAGE_ENTRIES: Final = 100
"""Leads of a page if the caller does not say."""
LEAD_RETURNS_ENTRIES_MAX: Final = 8
"""Times that a lead may be returned; then it is closed."""
LEAD_LIST_TTL_MS: Final = 90 * 86_400_000
"""A list of which nobody changed a lead for this long goes away."""
LEAD_SWEEP_MS: Final = 30_000
"""Time between two looks of a server for leads whose offers have expired."""
LEAD_SELLERS_ENTRIES_MAX: Final = 10_000
"""Rows of a file of sellers."""
LEAD_CUSTOMERS_ENTRIES_MAX: Final = 5_000_000
"""Customers that leads are chosen from in one run."""

# --- forgetting people ----------------------------------------------------------------------------------------------
FORGET_WAIT_MS_MAX: Final = 2_000
"""How long Forget waits for ingest, and again for the learner, before it says that they are not done yet."""
FORGET_POLL_MS: Final = 20
FORGETS_KEPT_ENTRIES_MAX: Final = 1_000
"""Entries that forget, of a partition, of which it is remembered how many lessons they took back."""

# --- explaining ------------------------------------------------------------------------------------------------------
BELIEFS_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Weights of earlier policies that a server keeps to explain its decisions; the older, the wider apart."""
EXPLAIN_ENTRIES_MAX: Final = 10_000
"""Contributions of the offers that were not chosen; beyond, the small ones of each offer are told together."""
EXPLAIN_OFFER_ENTRIES_MIN: Final = 8
"""But so many of each offer are always told one by one."""
POLICY_KEPT_INTERVAL_MS: Final = 60_000
"""Least time between two policies that the learner leaves in the store, for servers that were not there."""
POLICIES_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""All of these together, at least four; the older, the wider apart."""
POLICIES_KEPT_ENTRIES_MAX: Final = 2_000

# --- history from files ---------------------------------------------------------------------------------------------
HISTORY_BLOCK_BYTES: Final = 4 * 1024 * 1024
"""Of a CSV or of JSON lines that are parsed at once; no row may be longer."""
HISTORY_BUCKET_BYTES: Final = 64 * 1024 * 1024
"""Of the files, unpacked, that are sorted in memory at once, which takes a few times of it."""
BACKFILL_CUSTOMERS_BATCH_MAX: Final = 256
"""Customers that are written in one atomic step: the store serves nobody meanwhile, for about a millisecond."""
BACKFILL_EVENTS_BATCH_MAX: Final = 20_000
"""Events of a batch of several customers."""
BACKFILL_CONFLICT_RETRIES_MAX: Final = 1_000
"""Times that a batch is tried again because customers of it were written to meanwhile."""
BACKFILL_AWAY_MS_MAX: Final = 60_000
"""How long a backfill waits for a store that is away."""
BACKFILL_LETTERS_MAX: Final = 1_000
"""Refused rows of a backfill that become dead letters."""
BACKFILL_REASON_LETTERS_MAX: Final = 50
"""Of these, rows refused for the same reason."""
FROM_LOG_ENTRIES_MAX: Final = 200_000
"""Entries of the event log that are held at a time to see since when something was kept of them."""

# --- processes ------------------------------------------------------------------------------------------------------
DRAIN_MS_MAX: Final = 5_000
"""From SIGTERM to the end of a worker: what is acknowledged is written, what is queued is answered."""
STOP_MS_MAX: Final = 15_000
"""From SIGTERM to the end of everything, the store included."""
START_MS_MAX: Final = 60_000
STORE_ANSWER_MS_MAX: Final = 5_000
"""How long a store or a Kafka of your own may take to answer before anything is begun with it."""
RESTARTS_MAX: Final = 20
"""Restarts of one worker within RESTARTS_WINDOW_MS before the supervisor gives up."""
RESTARTS_WINDOW_MS: Final = 60_000

# --- the disk of the data folder -------------------------------------------------------------------------------------
DISK_FREE_BYTES_MIN: Final = 64 * 1024 * 1024
"""With less room than this the private store takes no writes: what it has acknowledged must still get into its file."""
DISK_LOOK_MS: Final = 500

# --- relations ------------------------------------------------------------------------------------------------------
# A record keeps the length of the context in two bytes.
assert CONTEXT_BYTES_MAX < 1 << 16
# A ledger keeps the number of outcomes of an offer in one byte.
assert COURSE_ENTRIES_MAX < 256
# A contact that a cap asks for is still in the store.
assert CONTACT_WINDOW_MS_MAX < CUSTOMER_KEY_TTL_MS
# A record keeps the length of all quotes of an answer in two bytes; an id is written with each.
assert SLATE_MAX * (2 * QUOTE_PART_BYTES_MAX + 200) < 1 << 16
# One entry never empties a timeline.
assert TIMELINE_ENTRY_BYTES_MAX * 4 <= TIMELINE_BYTES_MAX
assert TIMELINE_PAGE_ENTRIES <= TIMELINE_PAGE_ENTRIES_MAX
# A few heartbeats of a server may be lost before its leases are.
assert BUDGET_HEARTBEAT_MS * 3 <= BUDGET_LEASE_MS
# "batch/ID" is a request id.
assert BATCH_ID_BYTES_MAX + len("batch/") <= ID_BYTES_MAX
# What is not watched is answered in time by the bounds of its waits.
assert DECIDE_STATE_WAIT_MS_MAX + DECIDE_COMMIT_WAIT_MS_MAX + DECIDE_PUBLISH_WAIT_MS_MAX < DEADLINE_WATCHED_MS_MAX
# Batches take the room of interactive callers neither in the queue nor in a batch.
assert DECIDE_BULK_BATCH_MAX <= DECIDE_BATCH_MAX
# A lead outlives the window of its offer by enough to hear of it.
assert LEAD_LIST_TTL_MS <= CUSTOMER_KEY_TTL_MS
# A full batch must fit the queue, or a burst could never fill one.
assert DECIDE_BATCH_MAX <= DECIDE_QUEUE_MAX
# Events that may wait must still be in the log when their turn comes: what is acknowledged is not trimmed unfolded.
assert EVENT_BACKLOG_MAX + EVENTS_PER_CALL_MAX * 64 <= EVENT_LOG_ENTRIES_MAX
# The dead letters of one backfill do not push out all others.
assert BACKFILL_LETTERS_MAX * 10 <= DEAD_LETTERS_MAX
# A message of the largest kind can be sent without waiting for credit, and a connection carries several.
assert MESSAGE_BYTES_MAX + 5 <= CALL_WINDOW_BYTES
assert CALL_WINDOW_BYTES * 2 <= CONNECTION_WINDOW_BYTES <= HELD_BYTES_MAX
assert HELD_BYTES_MAX * 4 <= UNFINISHED_BYTES_MAX
# A worker drains within the time that everything together has, and the store still has time to write its file.
assert DRAIN_MS_MAX + 5_000 <= STOP_MS_MAX
assert LEAVE_MS_MAX * 4 <= DRAIN_MS_MAX
# What a customer remembers of links is enough to recognise a request to link everything that may be linked.
assert LINEAGE_ENTRIES_MAX >= 2 * CUSTOMER_IDENTITIES_MAX
# A few heartbeats may be lost.
assert KAFKA_HEARTBEAT_MS * 5 <= KAFKA_SESSION_MS_MAX
# A takeover is over before the supervisor would take its worker for one that does not start.
assert KAFKA_SESSION_MS_MAX < KAFKA_STALL_MS_MAX < START_MS_MAX
# A process that gives up on the broker says so before the supervisor kills it.
assert KAFKA_START_MS_MAX < START_MS_MAX
# The learner sleeps for less than a snapshot interval, or an outcome could wait two of them.
assert LEARN_BLOCK_MS <= SNAPSHOT_INTERVAL_MS
# Freshness of a second leaves room for the wait, the fit and the push.
assert SNAPSHOT_INTERVAL_MS * 4 + LEARN_PACE_MS + LEARN_BLOCK_MS <= 1_000
