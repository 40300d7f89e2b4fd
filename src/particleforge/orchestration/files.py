"""Lists of files: what the rules ask of samples, shards and detectors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from particleforge.config.detector import DetectorConfig
from particleforge.config.run import RunConfig
from particleforge.config.settings import n_dataset_shards, n_shards
from particleforge.inputs.given import GivenFiles
from particleforge.paths import SHARD_FORMAT, Paths


class Files:
    """The files of one run, as lists; ``given`` is None where events are simulated."""

    def __init__(
        self,
        run: RunConfig,
        detectors: Mapping[str, DetectorConfig],
        paths: Paths,
        given: GivenFiles | None,
    ) -> None:
        self._run, self._detectors, self._paths, self._given = run, detectors, paths, given

    def every(self, *patterns: str) -> list[str]:
        """Return the patterns, without other wildcards, filled for every chosen detector."""
        return [
            pattern.format(detector=detector)
            for detector in self._run.detector
            for pattern in patterns
        ]

    def every_shard(self, *patterns: str) -> list[str]:
        """Return the patterns filled for every shard of every chosen detector.

        Rules ask only when they are targets, as it may be many.
        """
        return [
            file
            for detector in self._run.detector
            for pattern in patterns
            for file in self._of_detector(pattern, detector)
        ]

    def shards(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for every shard of a job's detector, in order."""
        return lambda wildcards: self._of_detector(pattern, wildcards.detector)

    def trained_shards(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: likewise, without the samples that are held out of training."""
        return lambda wildcards: [
            file
            for name, sample in self._detectors[wildcards.detector].samples.items()
            if not sample.held_out
            for file in self._of_sample(pattern, wildcards.detector, name)
        ]

    def shards_of_sample(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for every shard of a job's sample, in order."""

        def files(wildcards: Any) -> list[str]:
            return self._of_sample(pattern, wildcards.detector, wildcards.sample)

        return files

    def samples(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for every sample of a job's detector."""
        return lambda wildcards: [
            pattern.format(detector=wildcards.detector, sample=name)
            for name in self._detectors[wildcards.detector].samples
        ]

    def dataset_inputs(self, wildcards: Any) -> list[str]:
        """Input function: the files of one shard of the dataset, simulated or given."""
        detector, sample, shard = wildcards.detector, wildcards.sample, int(wildcards.shard)
        if self._given:
            return self._given.files(detector, sample, shard)
        per_shard = self._run.simulation.files_per_dataset_shard
        numbers = range(shard * per_shard, (shard + 1) * per_shard)
        return _numbered(self._paths.simulated, detector, sample, numbers)

    def _of_detector(self, pattern: str, detector: str) -> list[str]:
        samples = self._detectors[detector].samples
        return [file for name in samples for file in self._of_sample(pattern, detector, name)]

    def _of_sample(self, pattern: str, detector: str, sample: str) -> list[str]:
        return _numbered(pattern, detector, sample, self._shards(pattern, detector, sample))

    def _shards(self, pattern: str, detector: str, sample: str) -> Iterable[int]:
        """Return the numbers of a sample's shards: simulated ones, or those of the dataset."""
        is_simulated = pattern == self._paths.simulated
        if self._given:
            return () if is_simulated else self._given.shards(detector, sample)
        count = n_shards if is_simulated else n_dataset_shards
        return range(count(self._run.simulation, self._detectors[detector].samples[sample]))


def _numbered(pattern: str, detector: str, sample: str, numbers: Iterable[int]) -> list[str]:
    """Return ``pattern`` filled for the numbered shards of one sample."""
    return [
        pattern.format(detector=detector, sample=sample, shard=SHARD_FORMAT.format(number))
        for number in numbers
    ]
