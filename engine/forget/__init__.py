"""Forgetting a person: what is removed where, and how the model comes to be as if it had never seen them.

    entry       the entry of the decision log that tells the learner, pure
    finding     where the logs hold what is one person's
    erasing     the steps of an erasure, each of which may be repeated, and its receipt
    unlearning  what the learner does beside its log: lessons long let go, and the end of the records

docs/privacy.md tells it for people.
"""
