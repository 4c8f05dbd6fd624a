"""Off-policy evaluation: what another policy would have earned, from what a log says. `opportune evaluate`.

    engine's log ─► enginelog ─┐
                               ├─► Log ─► judging ─► models.evaluation ─► report ─► terminal, JSON
    a file ──────► filelog ────┘            ▲
                        --policy ─► targets ┘

A `Log` is what both kinds of log have in common: for each decision the action, its propensity, its reward, who it was
about and the vector x. A target says how likely it would have done each action instead. Of a slate only the first
position is evaluated: its propensity is exact, and what the other positions add to it is in no log.

Beliefs that a target or the reward model needs are learnt from the same log, always from other customers than those
they are used on (`models.crossfit`).
"""
