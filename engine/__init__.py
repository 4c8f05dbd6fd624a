"""The engine: it owns the decision. Read in this order, from what a caller sends to what the next caller gets:

    config → catalogue          what an operator writes, checked and compiled (rules: rules)
    gateway → decider → decide  a request checked, batched, decided; ledger and record are what it leaves
    holds, contact_policy       what keeps offers back although rules hold: how often who may be contacted
    service, rpc, cloudevents, web, answers   the same services over gRPC and HTTP
    ingest                      events into features            policywatch   the policy into the servers
    lifecycle → attribution → learner → learning   outcomes into the policy
    explain                     why, by the belief that decided
    store                       where all of it lives
    worker, supervisor, embedded, datafolder, cli  the processes

`features` and `models` are pure and know nothing of this package; the pure parts here are decide, ledger, record,
lifecycle, attribution and learner: they take the clock and the dice as arguments.
"""

import os

# BLAS threads would fight the event loop for the cores, and products of this size gain nothing from them. It must be
# said before numpy is loaded for the first time, which is why it stands here.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
