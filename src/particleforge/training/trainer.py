"""The training loop of one rank.

Inputs -> outputs: a ``TrainingSpec`` and this process's ``Workers`` -> steps of the optimiser,
validations, checkpoints; the ``State`` of the whole training, from which any later run goes on.

Normalisation: every rank divides the sums of each of its micro-batches by the counts of the global
batch and multiplies by the number of parts that the events are dealt to, which undoes the
parallelism's mean over them (``parallelism``); so loss and gradients are those of one rank with the
whole batch, however many ranks and micro-batches (``training.accumulation_steps``) share it.

Agreement: what ends a run early (a signal, the end of its time, a non-finite loss, exhausted
patience) is derived from sums over all ranks, so that all ranks leave the loop at the same step.

Invariants (on CPUs): same settings, data and number of ranks give a bit-identical loss curve;
stopped and resumed runs equal uninterrupted ones bit for bit. Going on with other ranks,
parallelism, accumulation or device continues the sequence of global batches, and the curve up to
rounding. Random numbers (dropout) are seeded per (seed, rank, step) and need no saving. A
validation at ``until_step`` that the uninterrupted run would not make may improve the best weights,
but does not count for early stopping.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import (
    COUNTS,
    JUDGED,
    TERMS,
    Batch,
    counts,
    denominators,
    loss_sums,
    term_weights,
)
from particleforge.model.network import Outputs, ParticleFlowNetwork
from particleforge.seeds import seed_of
from particleforge.training.checkpoint import State, write_checkpoint
from particleforge.training.devices import check_compiler, check_precision, usage
from particleforge.training.distributed import Workers
from particleforge.training.init_from import start_from
from particleforge.training.loader import ShardLoader
from particleforge.training.metrics import MetricsLog
from particleforge.training.optimiser import learning_rate
from particleforge.training.parallelism import make_parallelism
from particleforge.training.parallelism.base import local_part
from particleforge.training.progress import Progress
from particleforge.training.spec import CHECKPOINTS, Status, TrainingSpec
from particleforge.training.timing import Moment, Shares, StepClock

log = logging.getLogger(__name__)
# per step, summed over ranks before the forward pass; seconds are those since the last tally
_TALLY = (
    *COUNTS,
    "events",
    "real_elements",
    "padded_elements",
    "interrupted",
    "loading_s",
    "communication_s",
)
_SECONDS_BETWEEN_SHARES = 10.0


class StoppedEarlyError(Exception):
    """The run ends before its last step, on all ranks."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Trainer:
    """A training on one rank; ``metrics`` is given on rank 0 only."""

    def __init__(
        self,
        spec: TrainingSpec,
        workers: Workers,
        inputs: ModelInputs,
        interrupted: Callable[[], bool],
    ) -> None:
        self.spec, self.settings, self.training = spec, spec.settings, spec.settings.training
        self.workers, self.interrupted = workers, interrupted
        check_precision(workers.device, self.training.precision)
        torch.manual_seed(seed_of(self.settings.seed, "weights"))
        network = self._make_network(inputs)
        self._host_columns = network.host_columns.clone()  # batches are counted on the CPU
        averaged = copy.deepcopy(network).requires_grad_(False) if self.training.ema_decay else None
        self.parallelism = make_parallelism(self.settings, workers)
        self.network = self.parallelism.place(network)
        self.averaged = self.parallelism.place(averaged) if averaged else None
        self.optimiser = self.parallelism.optimiser(self.network)
        self.train_loader, self.valid_loader = (
            ShardLoader(
                spec.manifest,
                split,
                inputs,
                budget=self.training.elements_per_batch,
                shards_in_memory=self.training.shuffle_shards,
                seed=self.settings.seed,
                rank=self.parallelism.data_rank,
                world_size=self.parallelism.data_size,
                parts=self.training.accumulation_steps,
                read_ahead=self.training.prefetch_windows,
                pin=workers.device.type == "cuda",
                max_events=self.training.max_train_events if split == "train" else None,
            )
            for split in ("train", "valid")
        )
        n_events = sum(map(len, self.train_loader.lengths))
        if n_events < workers.world_size:
            raise UserError(
                f"{spec.manifest}: the train split has {n_events} events for {workers.world_size}"
                " ranks; use fewer ranks"
            )
        self.weights = term_weights(self.training.loss, workers.device)
        self.valid_weights = term_weights(JUDGED).double()
        self.metrics: MetricsLog | None = None
        self.step = self.epoch = self.batch = self.stale_validations = 0
        self.valid_curve: list[list[float]] = []
        self.best: dict[str, Any] = {
            "step": 0,
            "valid_loss": None,
            "weights": self.parallelism.weights(self.scored),
        }
        # from which step on with how many ranks, micro-batches, and on what device
        self.execution: list[dict[str, Any]] = []
        # since the last row: terms, loss, gradient norm, elements, padded
        self.sums = torch.zeros(len(TERMS) + 4, dtype=torch.float64)
        self._seen = torch.zeros(len(_TALLY), dtype=torch.float64)
        self._clock, self._row_shares, self._epoch_shares = StepClock(), Shares(), Shares()

    def _make_network(self, inputs: ModelInputs) -> ParticleFlowNetwork:
        """Return the network with fresh weights or those of another training."""
        network = ParticleFlowNetwork(self.settings.model, inputs)
        if self.training.init_from is not None:
            line = start_from(network, Path(self.training.init_from))
            if self.workers.is_main:
                log.info("%s", line)
        network.checkpointing = self.training.activation_checkpointing
        return network

    # ---- state

    @property
    def scored(self) -> ParticleFlowNetwork:
        """The network that validation judges: the averaged one, if there is one."""
        return self.averaged or self.network

    def state(self) -> State:
        """Return all that a later run needs, as plain values and tensors, on rank 0.

        All ranks must ask for it.
        """
        return {
            "model": self.settings.model.model_dump(mode="json"),
            "inputs": self.network.inputs.plain(),
            "execution": self.execution,
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "elements_per_batch": self.training.elements_per_batch,
            "network": self.parallelism.weights(self.network),
            "averaged": self.parallelism.weights(self.averaged) if self.averaged else None,
            "optimiser": self.parallelism.optimiser_state(self.network, self.optimiser),
            "best": self.best,
            "valid_curve": self.valid_curve,
            "stale_validations": self.stale_validations,
            "sums": self.sums,
        }

    def restore(self, state: State) -> None:
        """Go back to a state; one of another architecture is a RuntimeError.

        After one with another batch the next epoch begins.
        """
        self.parallelism.load_weights(self.network, state["network"])
        if self.averaged:
            self.parallelism.load_weights(self.averaged, state["averaged"])
        self.parallelism.load_optimiser_state(self.network, self.optimiser, state["optimiser"])
        for name in (
            "step",
            "epoch",
            "batch",
            "best",
            "valid_curve",
            "stale_validations",
            "sums",
            "execution",
        ):
            setattr(self, name, state[name])
        if (
            self.batch
            and state.get("elements_per_batch", self.training.elements_per_batch)
            != self.training.elements_per_batch
        ):
            # the position is one among batches that this training does not have
            self.epoch, self.batch = self.epoch + 1, 0

    def _note_execution(self) -> None:
        """Take down how steps are computed from here on, and say so if that changed."""
        now: dict[str, Any] = {
            "ranks": self.workers.world_size,
            "parallelism": self.parallelism.name,
        }
        now |= {
            "accumulation_steps": self.training.accumulation_steps,
            "device": self.workers.device.type,
        }
        before = (
            {key: value for key, value in self.execution[-1].items() if key != "from_step"}
            if self.execution
            else None
        )
        if now != before:
            self.execution = [*self.execution, {"from_step": self.step, **now}]
            if before and self.workers.is_main:
                changed = ", ".join(
                    f"{key}: {before[key]} -> {now[key]}" for key in now if before[key] != now[key]
                )
                log.info("%s from step %d on; the curve goes on up to rounding", changed, self.step)

    # ---- loop

    def run(self) -> tuple[Status, str]:
        """Train to ``until_step`` and return status and reason; the state is saved."""
        self._note_execution()
        if self.training.compile:
            check_compiler()
            self.network.compile(dynamic=True)
        network = self.parallelism.wrap(self.network)
        try:
            with Progress(self.step, self.spec.until_step, show=self.workers.is_main) as progress:
                self._loop(network, progress)
        except StoppedEarlyError as stop:
            # the weights of a diverged run are of no use; its last checkpoint is
            if stop.status != "diverged":
                self._save()
            return stop.status, stop.reason
        return "complete", f"{self.step} steps done"

    def _loop(self, network: nn.Module, progress: Progress) -> None:
        stream = self.train_loader.stream(self.epoch, self.batch)
        training, until = self.training, self.spec.until_step
        self._stop_without_patience()
        self._row_shares, self._epoch_shares = Shares(), Shares()
        while self.step < until:
            with self._clock.waiting():
                epoch, position, micro_batches, n_events = next(stream)
            if epoch != self.epoch:
                self._report_shares(progress)
            self._train_step(network, micro_batches, n_events)
            self.step, self.epoch, self.batch = self.step + 1, epoch, position
            if self.step % training.log_every_steps == 0 or self.step == training.length:
                self._record_training(progress)
            progress.advance()
            with self._pause():
                if self.step % training.valid_every_steps == 0 or self.step == until:
                    self._validate(progress)
                if self.step % training.checkpoint_every_steps == 0 or self.step == until:
                    self._save()
            self._stop_without_patience()
        self._report_shares(progress, last=True)

    def _train_step(
        self, network: nn.Module, micro_batches: Sequence[Batch], n_events: int
    ) -> None:
        workers = self.workers
        if self.settings.model.dropout:
            torch.manual_seed(seed_of(self.settings.seed, "dropout", workers.rank, self.step))
        real = sum(int(batch.element_type.count_nonzero()) for batch in micro_batches)
        padded = sum(batch.element_type.numel() for batch in micro_batches)
        extra = torch.tensor(
            [n_events, real, padded, self.interrupted(), *self._clock.taken()], dtype=torch.float64
        )
        tally = torch.cat(
            (
                torch.stack([counts(batch, self._host_columns) for batch in micro_batches]).sum(0),
                extra,
            )
        )
        tally[: _TALLY.index("interrupted")] *= self.parallelism.counted
        if workers.world_size > 1:
            with self._clock.communicating():
                tally = workers.sum(tally)
        if tally[_TALLY.index("interrupted")]:
            raise StoppedEarlyError(
                "interrupted",
                f"stopped by a signal or the end of the job's time after {self.step} steps",
            )
        self.optimiser.zero_grad(set_to_none=True)
        terms = self._backward(network, micro_batches, denominators(tally[: len(COUNTS)]))
        backward_end = Moment(workers.device)
        norm = self.parallelism.clip(self.network, self.training.gradient_clip)
        *local, norm_value = torch.cat((terms, norm[None])).cpu().double()  # waits for the device
        terms = torch.stack(local)
        if workers.world_size > 1:
            self._clock.communication += self.parallelism.exposed_s(backward_end)
            with self._clock.communicating():
                terms = workers.sum(terms)
        values = torch.cat((terms, torch.stack((terms @ self.weights.cpu().double(), norm_value))))
        if not values.isfinite().all():
            raise StoppedEarlyError(
                "diverged",
                f"loss {values[-2]:g}, gradient norm {values[-1]:g} at step {self.step + 1}",
            )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.training, self.step)
        self.optimiser.step()
        self._average()
        self.sums += torch.cat(
            (values, tally[[_TALLY.index("real_elements"), _TALLY.index("padded_elements")]])
        )
        self._seen += tally
        seconds = tally[-2:] / workers.world_size
        self._row_shares.add(seconds)
        self._epoch_shares.add(seconds)

    def _backward(
        self, network: nn.Module, micro_batches: Sequence[Batch], global_counts: Tensor
    ) -> Tensor:
        """Add up all micro-batches' gradients; return this rank's part of the loss.

        The loss is its terms, float32 [terms], divided by ``global_counts``.
        """

        def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
            sums = loss_sums(outputs, batch, self.network.host_columns, self.training.loss)
            terms = sums / global_counts.to(sums)
            return terms @ self.weights * self.parallelism.data_size, terms

        return self.parallelism.backward(network, micro_batches, objective)

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged:
            # a young average follows quickly
            decay = min(self.training.ema_decay, (1 + self.step) / (10 + self.step))
            averaged, current = (
                [local_part(p) for p in network.parameters()]
                for network in (self.averaged, self.network)
            )
            torch._foreach_lerp_(averaged, current, 1 - decay)

    # ---- bookkeeping

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Leave the block's time out of speed and shares, which are those of training steps."""
        started = time.perf_counter()
        yield
        for shares in (self._row_shares, self._epoch_shares):
            shares.skip(time.perf_counter() - started)

    def _record_training(self, progress: Progress) -> None:
        steps = (self.step - 1) % self.training.log_every_steps + 1
        means = (self.sums / steps).tolist()
        # else this is the last row, and a longer run goes on summing
        if self.step % self.training.log_every_steps == 0:
            self.sums = torch.zeros_like(self.sums)
        seconds = self._row_shares.seconds
        loading, communication = self._row_shares.taken()
        elements, events = self._seen[
            [_TALLY.index("real_elements"), _TALLY.index("events")]
        ].tolist()
        values = dict(zip((*TERMS, "loss", "gradient_norm"), means[:-2], strict=True)) | {
            "learning_rate": learning_rate(self.training, self.step - 1),
            "events_per_s": events / seconds,
            "elements_per_s": elements / seconds,
            "padding_efficiency": means[-2] / max(1.0, means[-1]),
            "loading_share": loading,
            "communication_share": communication,
            **usage(self.workers.device),
        }
        if self.metrics:
            self.metrics.add(self.step, self.epoch, "train", values)
        progress.report_training(self.step, values["loss"], values["events_per_s"])
        self._seen = torch.zeros_like(self._seen)

    def _report_shares(self, progress: Progress, *, last: bool = False) -> None:
        """Say at an epoch's end, not more often than every few seconds, where its time went."""
        if last or self._epoch_shares.seconds > _SECONDS_BETWEEN_SHARES:
            progress.report_shares(self.step, self.epoch, *self._epoch_shares.taken())

    @torch.no_grad()
    def _validate(self, progress: Progress) -> None:
        network = self.scored.eval()
        sums = torch.zeros(len(TERMS) + len(COUNTS), dtype=torch.float64)
        for batch in self.valid_loader.once():
            found = self.parallelism.evaluate(
                network, batch, lambda outputs, part: loss_sums(outputs, part, network.host_columns)
            )
            sums += torch.cat(
                (found.cpu().double(), counts(batch, self._host_columns) * self.parallelism.counted)
            )
        self.network.train()
        total = self.workers.sum(sums)
        terms = total[: len(TERMS)] / denominators(total[len(TERMS) :])
        loss = float(terms @ self.valid_weights)
        if not math.isfinite(loss):
            raise StoppedEarlyError("diverged", f"validation loss {loss:g} at step {self.step}")
        self._note_validation(loss)
        if self.metrics:
            self.metrics.add(
                self.step,
                self.epoch,
                "valid",
                dict(zip(TERMS, terms.tolist(), strict=True)) | {"loss": loss},
            )
        progress.report_validation(self.step, loss, best=self.best["step"] == self.step)

    def _note_validation(self, loss: float) -> None:
        self.valid_curve = [*self.valid_curve, [self.step, loss]]
        improved = self.best["valid_loss"] is None or loss < self.best["valid_loss"]
        if improved:
            self.best = {
                "step": self.step,
                "valid_loss": loss,
                "weights": self.parallelism.weights(self.scored),
            }
        if self.step % self.training.valid_every_steps == 0:
            self.stale_validations = 0 if improved else self.stale_validations + 1

    def _stop_without_patience(self) -> None:
        patience = self.training.early_stopping_patience
        if patience and self.stale_validations >= patience:
            raise StoppedEarlyError(
                "complete",
                f"early stopping after {self.step} steps: {patience} validations without"
                " improvement",
            )

    def _save(self) -> None:
        state = self.state()
        if self.workers.is_main:
            write_checkpoint(self.spec.work_dir / CHECKPOINTS, state)
