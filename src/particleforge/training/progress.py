"""Progress of a training on rank 0: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Context that shows steps ``done`` ... ``total``; silent unless ``show``."""

    def __init__(self, done: int, total: int, *, show: bool) -> None:
        self._total, self._show = total, show
        self._bar = tqdm(
            total=total, initial=done, unit="step", disable=not (show and sys.stderr.isatty())
        )
        self._last_line = 0.0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bar."""
        self._bar.close()

    def advance(self) -> None:
        """Count one step."""
        self._bar.update()

    def report_training(self, step: int, loss: float, events_per_s: float) -> None:
        """Show the training loss, in a log at most every few seconds."""
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {events_per_s:.0f} events/s")
        elif self._show and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info(
                "step %d of %d: loss %.4f, %.0f events/s", step, self._total, loss, events_per_s
            )

    def report_shares(self, step: int, epoch: int, loading: float, communication: float) -> None:
        """Say where the time of the last steps went."""
        if self._show:
            with tqdm.external_write_mode():
                rest = max(0.0, 1 - loading - communication)
                shares = (
                    f"{rest:.0%} computation, {loading:.0%} waiting for data, {communication:.0%}"
                    " communication"
                )
                log.info(
                    "step %d of %d, epoch %d: time of training: %s",
                    step,
                    self._total,
                    epoch,
                    shares,
                )

    def report_validation(self, step: int, loss: float, *, best: bool) -> None:
        """Show the validation loss."""
        if self._show:
            with tqdm.external_write_mode():
                log.info(
                    "step %d of %d: validation loss %.5f%s",
                    step,
                    self._total,
                    loss,
                    ", best so far" if best else "",
                )
