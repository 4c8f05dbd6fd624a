"""History: events from files into state, and training sets out of state, all by the fold that live events go through.

    files ──► sources ──► rows: checked ──► staging: sorted by customer and time ──► folding ──► backfill
                                                                                        └──────► asof
    decision log ──────────────────────────────────────────────────────────────────────────────► decisions

    mapping   which column is what, and the errors when it is not
    sources   CSV, Parquet, JSON lines and CloudEvents lines, in batches of bounded size
    rows      a batch of columns into checked events; what is wrong is told and counted, the rest goes on
    staging   an external sort on disk, so that every customer is folded once and memory stays bounded
    inforce   no features are written but those of the version in force
    folding   the one place that calls Layout for history: fold and merge
    rolling   households and the like: who belongs to one by the rows, and copies of events under its name
    loading   all of that for the commands: files read, checked and sorted
    backfill  the job: claimed, resumed and finished
    jobs      which files and times a job loads, by marks in the store
    writing   what a job writes for each customer and household, merged with what is there
    chunks    each chunk of a job once
    fromlog   features that came later, from the event log
    asof      features as they would have been at given times (the point-in-time join)
    decisions training rows from the decision log

Nothing in here is imported by the processes that serve: polars and pyarrow are loaded by the commands that need them.
"""
