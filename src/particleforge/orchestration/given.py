"""What the rules ask of files that were given: which are fetched, from where, how patiently."""

from typing import Any

from particleforge.config.run import RunConfig
from particleforge.config.settings import FetchSettings
from particleforge.errors import UserError
from particleforge.inputs.given import GivenFiles
from particleforge.orchestration.job_resources import Resource
from particleforge.paths import APPLIED


class Given:
    """The given files of one run; none where events are simulated.

    ``applied`` are those of ``apply.files``, if there are any.
    """

    def __init__(
        self, run: RunConfig, source: GivenFiles | None, applied: GivenFiles | None
    ) -> None:
        self._run, self._source, self._applied = run, source, applied

    def fetched_files(self) -> list[str]:
        """Return all files that are fetched for the chosen detectors."""
        sources = [source for source in (self._source, self._applied) if source is not None]
        return [
            file
            for name in self._run.detector
            for source in sources
            for file in source.fetched(name)
        ]

    def fetch_settings(self, wildcards: Any) -> dict[str, Any]:
        """Params function: a file to fetch."""
        given = self._applied if wildcards.sample == APPLIED else self._source
        if given is None:
            raise UserError(
                "simulation.backend: is parametric, so nothing is fetched; set it to files"
            )
        source = given.source(wildcards.detector, wildcards.sample, wildcards.source)
        return FetchSettings(url=source.url, checksum=source.checksum, size=source.size).plain()

    def fetch_resources(self) -> dict[str, Resource]:
        """Return, as resources of a fetch, what is no setting: changing it fetches nothing anew."""
        fetch = self._run.simulation.fetch
        return {
            "fetch_attempts": fetch.attempts,
            "fetch_wait_ms": round(fetch.wait_s * 1000),
            "fetch_timeout_ms": round(fetch.timeout_s * 1000),
            "fetch_mb_max": round(fetch.gb_max * 1000),
            "on_bad_file": self._run.dataset.on_bad_file,
        }

    def checksums(self, wildcards: Any) -> list[str]:
        """Return the checksums that the files of a job's shard must have; none if none is known."""
        if self._source is None:
            return []
        shard = int(wildcards.shard)
        return self._source.checksums(wildcards.detector, wildcards.sample, shard)

    def keep_numbers(self) -> None:
        """Write down which shard each given file belongs to."""
        for source in (self._source, self._applied):
            if source is not None:
                source.keep_numbers()
