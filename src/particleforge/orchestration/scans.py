"""What the rules ask of scans: their trainings, where these start from, their results."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from particleforge.config.run import RunConfig
from particleforge.config.scans import ScanName
from particleforge.errors import UserError
from particleforge.paths import Paths
from particleforge.scans.points import points_of


class Scans:
    """The scans of one run: static lists of trainings (docs/scans.md)."""

    def __init__(self, run: RunConfig, paths: Paths) -> None:
        self._run, self._paths = run, paths
        self._points = cache(partial(points_of, run))

    @property
    def detectors(self) -> list[str]:
        """The detector whose model fine-tuning starts from, if one is named."""
        source = self._run.scans.fine_tuning.from_detector
        return [source] if source else []

    def results(self, scan: ScanName) -> Callable[..., list[str]]:
        """Return an input function: all that a scan writes, for every detector that it is about."""

        def files(_wildcards: Any) -> list[str]:
            detectors = [name for name in self._run.detector if self._is_about(scan, name)]
            if not detectors:
                raise UserError(
                    f"scans.{scan}.from_detector: {', '.join(self._run.detector)} is the only"
                    " detector; choose another, too"
                )
            written = (self._paths.scan, self._paths.scan_table, self._paths.scan_plots)
            return [p.format(detector=name, scan=scan) for name in detectors for p in written]

        return files

    def in_report(self, pattern: str) -> Callable[..., list[str]]:
        """Return an input function: ``pattern`` for each scan that a detector's report shows."""
        return lambda wildcards: [
            pattern.format(detector=wildcards.detector, scan=scan)
            for scan in self._run.report.scans
            if self._is_about(scan, wildcards.detector)
        ]

    def points(self, wildcards: Any) -> list[str]:
        """Input function: results of all trainings of a scan."""
        pattern, scan = self._paths.scan_point, wildcards.scan
        return [
            pattern.format(detector=wildcards.detector, scan=scan, point=point)
            for point in self._points(scan)
        ]

    def source(self, wildcards: Any) -> list[str]:
        """Input function: the model that fine-tuning starts from; nothing for other scans."""
        if wildcards.scan != "fine_tuning":
            return []
        return [self._paths.model.format(detector=self._fine_tuned_from())]

    def point(self, wildcards: Any) -> dict[str, Any]:
        """Params function: one training of a scan."""
        points = self._points(wildcards.scan)
        if wildcards.point not in points:
            raise UserError(
                f"scans.{wildcards.scan}: has no training {wildcards.point}; there are:"
                f" {', '.join(points)}"
            )
        return points[wildcards.point].plain()

    def _is_about(self, scan: ScanName, detector: str) -> bool:
        return scan != "fine_tuning" or self._fine_tuned_from() != detector

    def _fine_tuned_from(self) -> str:
        if not self.detectors:
            raise UserError(
                "scans.fine_tuning.from_detector: is not set; name the detector whose trained"
                " model to start from"
            )
        return self.detectors[0]
