"""What can go wrong in this package, beyond wrong arguments (`ValueError`)."""


class CheckpointError(ValueError):
    """Stored or exchanged bytes cannot be used: cut short, damaged, or made for another input transform.

    Nobody's request is at fault. The owner of the bytes should restore an older copy or learn again from the log.
    """
