"""`[audit]`: who outside remembers what the trail was. Data only; how long its entries say who did what is `[keep] audit`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edge.contract.names import Name


class AuditConfig(BaseModel):
    """`[audit]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heads_file: Path | None = Field(
        None, description="File that gets one line a day, the trail's last hash: keep it on another disk; absent: none."
    )
    heads_to: Name | None = Field(None, description="Contact or group that is told it each day; absent: nobody.")
