"""Physics validation."""

from pydantic import Field

from particleforge.config.base import Block


class ValidationConfig(Block):
    """Sizes of the validation."""

    match_radius: float = Field(
        0.1,
        gt=0,
        description="largest distance (eta, phi) between a candidate and its truth particle",
    )
    n_bootstrap: int = Field(
        100, ge=10, description="resamplings for the statistical errors of medians and IQRs"
    )
