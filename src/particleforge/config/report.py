"""The report."""

from pydantic import Field

from particleforge.config.base import Block
from particleforge.config.scans import ScanName


class ReportConfig(Block):
    """What the report shows beyond the results of the stages."""

    n_event_displays: int = Field(2, ge=0, description="events of each sample that are drawn")
    scans: tuple[ScanName, ...] = Field(
        (), description="scans that the report shows, and that are made for it"
    )
