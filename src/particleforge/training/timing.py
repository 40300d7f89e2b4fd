"""Where the time of training steps goes: waiting for data, communication, computation.

Inputs -> outputs: clock readings around the parts of a step -> shares of the time since the last
report, averaged over ranks.

* Loading is the time in which the loop waits for its next batch.
* Communication is what ranks agree on before and after each step (counts and loss), and the part of
  the gradients' all-reduce that computation does not hide. DDP reduces gradients in buckets while
  others are still computed; its communication hook is called as soon as a bucket is ready, so from
  the last call to the end of the backward pass nothing is computed any more. On a CPU this is read
  from the clock, on an accelerator from events in its stream, which the step waits for anyhow. It
  holds waiting for slower ranks, whatever kept them.
* Computation is the rest.

A step pays for some clock readings and a call of Python per bucket.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

# torch.distributed has it, but hides it from type checkers
from torch._C._distributed_c10d import GradBucket
from torch.futures import Future


class StepClock:
    """Seconds of this rank's current step, by kind."""

    def __init__(self) -> None:
        self.loading = self.communication = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        started = time.perf_counter()
        yield
        self.loading += time.perf_counter() - started

    @contextmanager
    def communicating(self) -> Iterator[None]:
        """Count the time of the block as communication."""
        started = time.perf_counter()
        yield
        self.communication += time.perf_counter() - started

    def taken(self) -> list[float]:
        """Return the seconds of loading and communication since the last call, and start anew."""
        seconds = [self.loading, self.communication]
        self.loading = self.communication = 0.0
        return seconds


class Moment:
    """A point in time of a device's stream of work."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event = None
        if device.type != "cpu":
            self._event = torch.Event(device, enable_timing=True)
            self._event.record()

    def until(self, later: "Moment") -> float:
        """Return the seconds from here to ``later``, whose work must have ended."""
        if self._event is None or later._event is None:
            return later._seconds - self._seconds
        return float(self._event.elapsed_time(later._event)) / 1e3


class TimedGradientMean:
    """DDP's communication hook, which keeps the moment of the last bucket.

    Gradients are averaged over ranks, as without a hook.
    """

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.device, self.world_size = device, world_size
        self.last_ready: Moment | None = None

    def reduce(self, _state: object, bucket: GradBucket) -> Future[Tensor]:
        """Start the mean of one bucket over all ranks."""
        self.last_ready = Moment(self.device)
        future = dist.all_reduce(bucket.buffer().div_(self.world_size), async_op=True).get_future()
        mean: Future[Tensor] = future.then(lambda done: done.value()[0])
        return mean

    def exposed(self, end: Moment) -> float:
        """Return the seconds from the last bucket to ``end``, the end of a backward pass.

        The pass's work has ended.
        """
        return 0.0 if self.last_ready is None else max(0.0, self.last_ready.until(end))


class Shares:
    """Shares of loading and communication in the time since the last report."""

    def __init__(self) -> None:
        self._parts = torch.zeros(2, dtype=torch.float64)
        self._started = time.perf_counter()

    def add(self, mean_seconds: Tensor) -> None:
        """Add a step's seconds of loading and communication, float64 [2], averaged over ranks."""
        self._parts += mean_seconds

    def skip(self, seconds: float) -> None:
        """Take time that was no training, such as a validation, out of the total."""
        self._started += seconds

    @property
    def seconds(self) -> float:
        """Seconds since the last report."""
        return max(1e-9, time.perf_counter() - self._started)

    def taken(self) -> tuple[float, float]:
        """Return the shares of loading and communication, and start anew."""
        loading, communication = (min(1.0, part / self.seconds) for part in self._parts.tolist())
        self._parts.zero_()
        self._started = time.perf_counter()
        return loading, communication
