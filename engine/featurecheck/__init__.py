"""The data-quality report of the features: what `opportune features --check` finds.

    store ──► reading ──┬─► values    a sample of customers: what each feature reads as, what the records say
                        ├─► arrivals  the event log: what comes, how late, what stopped coming
                        ├─► rejected  dead letters: what was refused and why
                        └─► drift     the decision log: the vectors that decisions saw, over time
                                 └──► Report: figures, findings, exit code ──► terminal, JSON

`reading` touches the store, `report` the terminal; the other modules compute and are given all times. Whether a figure
is a finding is decided by the numbers in `thresholds` and by nothing else.

Non-goals: mending anything; alarms within seconds (that is what /metrics is for); judging what only the business can
know, such as whether a feature ought to be missing for nine customers in ten.

The modules are imported by name: `drift` brings river, which takes its time and which the other commands do not need.
"""
