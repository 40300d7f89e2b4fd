"""What the rules ask of the target ``apply``: files, each reconstructed by a job of its own.

Its files are one sample, ``paths.APPLIED``, whose shards have one file each. So they are named,
found, fetched and numbered as samples' files are.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from particleforge.config.detector import DetectorConfig
from particleforge.config.run import RunConfig
from particleforge.config.settings import ReconstructSettings, applied_dataset_settings
from particleforge.errors import UserError
from particleforge.inputs.given import GivenFiles
from particleforge.paths import APPLIED, SHARD_FORMAT, Paths

_UNUSUAL = re.compile(r"[^A-Za-z0-9._+-]")  # in a file's name, which becomes part of another's


class Apply:
    """The files that the run's model, or another, is applied to."""

    def __init__(
        self, run: RunConfig, detectors: Mapping[str, DetectorConfig], paths: Paths
    ) -> None:
        """Find the files; UserError for what cannot be."""
        self._run, self._detectors, self._paths = run, detectors, paths
        self.source: GivenFiles | None = None
        if run.apply.files:
            self._check()
            self.source = GivenFiles(run, detectors, paths, to_apply=True)

    def check_targets(self, snakemake_workflow: Any) -> None:
        """Raise a UserError if the target is asked for without files to reconstruct.

        Asked when a run starts: while rules are read, Snakemake's targets are not known, and what
        an input function raises it prints on several lines.
        """
        if self.source is None and APPLIED in snakemake_workflow.dag_settings.targets:
            raise UserError(
                "apply.files: names no file; give those to reconstruct, e.g."
                " --config 'apply={files: [FILE.root], model: model.onnx}'"
            )

    def outputs(self) -> list[str]:
        """Return the files to write, two for each that is given."""
        if self.source is None:
            return []
        patterns = (self._paths.applied, self._paths.applied_edm4hep)
        return [
            pattern.format(detector=detector, applied=self._name(detector, number))
            for detector in self._run.detector
            for number in self.source.shards(detector, APPLIED)
            for pattern in patterns
        ]

    @property
    def model(self) -> str:
        """The pattern of the model's path."""
        return self._run.apply.model or self._paths.onnx

    def file(self, wildcards: Any) -> str:
        """Input function: the file that a job reconstructs."""
        if self.source is None:
            raise UserError("apply.files: names no file; give those to reconstruct")
        (file,) = self.source.files(wildcards.detector, APPLIED, _number(wildcards))
        return file

    def settings(self, wildcards: Any) -> dict[str, Any]:
        """Params function: how a job's file is read and reconstructed."""
        detector = self._detectors[wildcards.detector]
        checksums = (
            self.source.checksums(wildcards.detector, APPLIED, _number(wildcards))
            if self.source
            else ()
        )
        dataset = applied_dataset_settings(self._run, detector, checksums)
        return {
            "reconstruct": ReconstructSettings.of(self._run, detector).plain(),
            "dataset": dataset.plain(),
        }

    def _name(self, detector: str, number: int) -> str:
        """Return the name of a file's outputs: its number, which is its own, and its name."""
        assert self.source is not None
        (file,) = self.source.files(detector, APPLIED, number)
        return f"{SHARD_FORMAT.format(number)}_{_UNUSUAL.sub('_', Path(file).stem)}"

    def _check(self) -> None:
        model = self._run.apply.model
        if model is not None and not Path(model).is_file():
            raise UserError(f"apply.model: {model}: no such file; give the model.onnx of an export")
        if len(self._run.detector) > 1:
            raise UserError(
                f"apply.files: are files of one detector, chosen are"
                f" {', '.join(self._run.detector)}; choose theirs with detector"
            )
        for name, detector in self._detectors.items():
            if APPLIED in detector.samples:
                raise UserError(
                    f"{name}: samples.{APPLIED}: is what the files of apply.files are called;"
                    " rename the sample"
                )


def _number(wildcards: Any) -> int:
    return int(wildcards.applied.partition("_")[0])
