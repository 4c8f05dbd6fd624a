"""What a configuration says of who may change it."""

from typing import Annotated

from pydantic import Field

from engine import limits
from engine.config_base import Part


class Governance(Part):
    """Who must agree before another configuration takes this one's place."""

    approvals: Annotated[int, Field(ge=0, le=limits.APPROVALS_ENTRIES_MAX)] = 0
    """People other than the author who must approve; 0: `opportune apply` activates at once."""
