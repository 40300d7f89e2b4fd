"""The files that samples consist of with ``simulation.backend: files``, as the rules ask for them.

Inputs -> outputs: configuration and ledgers of the results folder -> shards of the dataset of each
sample, the files of each, and what is known of those that must be fetched.

Imported while the Snakefile is parsed: nothing heavy here.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from particleforge.config.detector import DetectorConfig, SampleConfig
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.inputs.sources import Ledger, SampleFiles, Source, sample_files
from particleforge.inputs.zenodo import RecordFile
from particleforge.paths import APPLIED, Paths


class GivenFiles:
    """The given files of all samples of all detectors of a run, or those of ``apply.files``.

    The latter are one sample, ``paths.APPLIED``, of each chosen detector, with a shard for each.
    UserError if a sample has none or names some that cannot be.
    """

    def __init__(
        self,
        run: RunConfig,
        detectors: Mapping[str, DetectorConfig],
        paths: Paths,
        *,
        to_apply: bool = False,
    ) -> None:
        self._paths = paths
        self._results = os.path.abspath(paths.results_dir)  # noqa: PTH100  links keep their names
        self._samples: dict[tuple[str, str], SampleFiles] = {}
        self._fetched: dict[tuple[str, str], dict[str, Source]] = {}
        fetch = run.simulation.fetch
        # samples may share a record, which is asked for once
        records: dict[str, Sequence[RecordFile]] = {}
        per_shard = 1 if to_apply else run.simulation.files_per_dataset_shard
        named = _to_apply(run) if to_apply else _of_samples(detectors)
        for (detector, name), (key, sample) in named.items():
            ledger = Ledger.read(self._ledger(detector, name), per_shard).knowing(records)
            found = sample_files(sample, key, ledger, fetch.zenodo_url, fetch.timeout_s)
            records |= found.ledger.records
            self._samples[detector, name] = found
            self._fetched[detector, name] = self._by_storage(found, key)

    def shards(self, detector: str, sample: str) -> list[int]:
        """Return the numbers of the shards of a sample, in order."""
        return sorted(self._samples[detector, sample].shards)

    def files(self, detector: str, sample: str, shard: int) -> list[str]:
        """Return the paths of the files of a shard, those to be fetched where they will be."""
        return [
            self._path(detector, sample, source)
            for source in self._sources(detector, sample, shard)
        ]

    def checksums(self, detector: str, sample: str, shard: int) -> list[str]:
        """Return the checksums that the files of a shard must have, in order ("" for none).

        Nothing if no file has one.
        """
        found = [source.checksum for source in self._sources(detector, sample, shard)]
        return found if any(found) else []

    def fetched(self, detector: str) -> list[str]:
        """Return the paths of all files of a detector that are fetched."""
        return [
            self._path(detector, name, source)
            for (own, name) in self._fetched
            if own == detector
            for source in self._fetched[own, name].values()
        ]

    def source(self, detector: str, sample: str, stored: str) -> Source:
        """Return the file that is stored under a name of ``Source.stored``.

        UserError if the sample has none.
        """
        try:
            return self._fetched[detector, sample][stored]
        except KeyError:
            raise UserError(
                f"{detector}: samples.{sample}: has no file {stored} to fetch"
            ) from None

    def keep_numbers(self) -> None:
        """Write the ledgers."""
        for (detector, sample), found in self._samples.items():
            found.ledger.write(self._ledger(detector, sample))

    def _sources(self, detector: str, sample: str, shard: int) -> Sequence[Source]:
        shards = (
            self._samples[detector, sample].shards if (detector, sample) in self._samples else {}
        )
        if shard not in shards:
            raise UserError(
                f"{detector}: samples.{sample}: has no shard {shard}; its files make {len(shards)}"
            )
        return shards[shard]

    def _by_storage(self, found: SampleFiles, key: str) -> dict[str, Source]:
        """Return what is fetched by where it is stored.

        UserError for a local file of the results, which a run might make anew.
        """
        stored: dict[str, Source] = {}
        outside: set[str] = set()  # folders; there may be many files in few
        for source in (source for shard in found.shards.values() for source in shard):
            if source.is_remote:
                other = stored.setdefault(source.stored, source)
                if other is not source:
                    raise UserError(
                        f"{key}.files: {other.location} and {source.location} are one file; name it"
                        " once"
                    )
            elif (folder := os.path.dirname(source.location)) not in outside:  # noqa: PTH120
                if f"{os.path.abspath(folder)}/".startswith(f"{self._results}/"):  # noqa: PTH100
                    raise UserError(
                        f"{key}.files: {source.location}: lies in results_dir, where a run may make"
                        " it anew; move it elsewhere"
                    )
                outside.add(folder)
        return stored

    def _ledger(self, detector: str, sample: str) -> Path:
        return Path(self._paths.file_numbers.format(detector=detector, sample=sample))

    def _path(self, detector: str, sample: str, source: Source) -> str:
        if not source.is_remote:
            return source.location
        return self._paths.fetched.format(detector=detector, sample=sample, source=source.stored)


def _of_samples(
    detectors: Mapping[str, DetectorConfig],
) -> dict[tuple[str, str], tuple[str, SampleConfig]]:
    """Return all samples by detector and name, and how messages call each."""
    return {
        (detector, name): (f"{detector}: samples.{name}", sample)
        for detector, content in detectors.items()
        for name, sample in content.samples.items()
    }


def _to_apply(run: RunConfig) -> dict[tuple[str, str], tuple[str, SampleConfig]]:
    """Return the files of ``apply.files`` likewise."""
    return {(detector, APPLIED): ("apply", run.apply.sample) for detector in run.detector}
