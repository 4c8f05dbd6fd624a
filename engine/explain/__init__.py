"""Explaining: why this offer, why not that one, why nothing, by the belief that decided.

    record ─► finding: the policy that the record names, or the nearest one kept ─► contributions: what each input added
           ─► case: every offer's way from estimate to worth ─► story: sentences, of the words of a language

Policies are kept twice, both bounded, both the more sparsely the older they are: each server keeps those that it
decided with (`kept`, in memory), and the learner leaves one now and then in the store (`archive`) for servers that were
not there. Where the very version is gone the nearest one explains, and the answer says so. Nothing of this is on the
way of a decision.
"""
