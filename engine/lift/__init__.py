"""What experiments and control groups brought, from the engine's own logs. `opportune lift`.

    decision log ─► reading ─► visits ─► people ─┐
                                                 ├─► models.lift ─► report ─► terminal, JSON
    event log ────► goals ───────────────────────┘

A visit is a decision with what came of it. People are in the arm that their id and the configuration say; all that
happened to one is added up, and people are compared, by models.lift.
"""
