"""Files of detectors, real or simulated, and the model that they are reconstructed with."""

from pydantic import Field

from particleforge.config.base import AddressText, Block, PathText
from particleforge.config.detector import Checksums, SampleConfig
from particleforge.paths import APPLIED


class ApplyConfig(Block):
    """What the target apply reconstructs, without truth, and with which model."""

    model: PathText | None = Field(
        None, description="model.onnx of an export; none: that of this run, which is trained first"
    )
    files: tuple[AddressText, ...] = Field(
        (),
        description=(
            "EDM4hep or Delphes files: paths, globs, folders (their *.root), http(s)://, root://,"
            " zenodo://record/<id>/<glob>"
        ),
    )
    checksums: Checksums = Field(
        {}, description="by name of a file, sha256:<hex> or md5:<hex> that it must have"
    )
    events_per_file_max: int | None = Field(
        None, ge=1, description="events that are reconstructed of each file; none: all"
    )

    @property
    def sample(self) -> SampleConfig:
        """The files as those of a sample."""
        return SampleConfig(
            label=APPLIED,
            files=self.files,
            checksums=self.checksums,
            events_per_file_max=self.events_per_file_max,
        )
