"""The training loop of one rank.

Inputs -> outputs: a ``TrainingSpec`` and this process's ``Workers`` -> steps of the optimiser, validations, checkpoints; the
``State`` of the whole training, from which any later run goes on.

Normalisation: every rank divides its sums by the counts of the global batch and multiplies by the number of ranks, which
undoes DDP's mean over ranks; so loss and gradients are those of one rank with the whole batch.

Agreement: what ends a run early (a signal, a non-finite loss, exhausted patience) is derived from sums over all ranks, so that
all ranks leave the loop at the same step.

Invariants (on CPUs): same settings, data and number of ranks give a bit-identical loss curve; stopped and resumed runs equal
uninterrupted ones bit for bit. Random numbers (dropout) are seeded per (seed, rank, step) and need no saving. A validation at
``until_step`` that the uninterrupted run would not make may improve the best weights, but does not count for early stopping.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from particleforge.config.training import LossConfig
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import TERMS, Batch, counts, denominators, loss_sums, term_weights
from particleforge.model.network import SetTransformer
from particleforge.seeds import seed_of
from particleforge.training.checkpoint import State, write_checkpoint
from particleforge.training.distributed import Workers
from particleforge.training.loader import ShardLoader
from particleforge.training.metrics import MetricsLog
from particleforge.training.optimiser import learning_rate, make_optimiser
from particleforge.training.progress import Progress
from particleforge.training.spec import CHECKPOINTS, Status, TrainingSpec

log = logging.getLogger(__name__)
# per step, summed over ranks before the forward pass
_TALLY = ("elements", "particles", "events", "padded_elements", "interrupted")


class StoppedEarlyError(Exception):
    """The run ends before its last step, on all ranks."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Trainer:
    """A training on one rank; ``metrics`` is given on rank 0 only."""

    def __init__(self, spec: TrainingSpec, workers: Workers, inputs: ModelInputs, interrupted: Callable[[], bool]) -> None:
        self.spec, self.settings, self.training = spec, spec.settings, spec.settings.training
        self.workers, self.interrupted = workers, interrupted
        torch.manual_seed(seed_of(self.settings.seed, "weights"))
        self.network = SetTransformer(self.settings.model, inputs).to(workers.device)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if self.training.ema_decay else None
        self.optimiser = make_optimiser(self.training, self.network)
        self.train_loader, self.valid_loader = (
            ShardLoader(
                spec.manifest,
                split,
                inputs,
                budget=self.training.elements_per_batch,
                shards_in_memory=self.training.shuffle_shards,
                seed=self.settings.seed,
                rank=workers.rank,
                world_size=workers.world_size,
                max_events=self.training.max_train_events if split == "train" else None,
            )
            for split in ("train", "valid")
        )
        self.weights = term_weights(self.training.loss, workers.device)
        self.valid_weights = term_weights(LossConfig()).double()
        self.metrics: MetricsLog | None = None
        self.step = self.epoch = self.batch = self.stale_validations = 0
        self.valid_curve: list[list[float]] = []
        self.best: dict[str, Any] = {"step": 0, "valid_loss": None, "weights": self._scored_weights()}
        self.sums = torch.zeros(len(TERMS) + 4, dtype=torch.float64)  # since the last row: terms, loss, gradient norm, elements, padded
        self._clock, self._seen = time.perf_counter(), torch.zeros(len(_TALLY), dtype=torch.float64)

    # ---- state

    @property
    def scored(self) -> SetTransformer:
        """The network that validation judges: the averaged one, if there is one."""
        return self.averaged or self.network

    def _scored_weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.scored.state_dict().items()}

    def state(self) -> State:
        """Return all that a later run needs, as plain values and tensors."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "valid_curve": self.valid_curve,
            "stale_validations": self.stale_validations,
            "sums": self.sums,
        }

    def restore(self, state: State) -> None:
        """Go back to a state; one of another architecture is a RuntimeError of torch."""
        self.network.load_state_dict(state["network"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in ("step", "epoch", "batch", "best", "valid_curve", "stale_validations", "sums"):
            setattr(self, name, state[name])

    # ---- loop

    def run(self) -> tuple[Status, str]:
        """Train to ``until_step`` and return status and reason; the state is saved."""
        network: nn.Module = self.network
        if self.workers.world_size > 1:
            devices = [self.workers.device] if self.workers.device.type == "cuda" else None
            network = nn.parallel.DistributedDataParallel(
                network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        try:
            with Progress(self.step, self.spec.until_step, show=self.workers.is_main) as progress:
                self._loop(network, progress)
        except StoppedEarlyError as stop:
            if stop.status != "diverged":  # the weights of a diverged run are of no use; its last checkpoint is
                self._save()
            return stop.status, stop.reason
        return "complete", f"{self.step} steps done"

    def _loop(self, network: nn.Module, progress: Progress) -> None:
        stream = self.train_loader.stream(self.epoch, self.batch)
        training, until = self.training, self.spec.until_step
        self._stop_without_patience()
        self._clock = time.perf_counter()
        while self.step < until:
            epoch, position, (batch,), n_events = next(stream)
            self._train_step(network, batch, n_events)
            self.step, self.epoch, self.batch = self.step + 1, epoch, position
            if self.step % training.log_every_steps == 0 or self.step == training.max_steps:
                self._record_training(progress)
            progress.advance()
            if self.step % training.valid_every_steps == 0 or self.step == until:
                self._validate(progress)
            if self.step % training.checkpoint_every_steps == 0 or self.step == until:
                self._save()
            self._stop_without_patience()

    def _train_step(self, network: nn.Module, batch: Batch, n_events: int) -> None:
        workers = self.workers
        if self.settings.model.dropout:
            torch.manual_seed(seed_of(self.settings.seed, "dropout", workers.rank, self.step))
        extra = torch.tensor([n_events, batch.element_type.numel(), self.interrupted()], dtype=torch.float64)
        tally = workers.sum(torch.cat((counts(batch), extra)).to(workers.device)).cpu()
        if tally[_TALLY.index("interrupted")]:
            raise StoppedEarlyError("interrupted", f"stopped by a signal or the end of the job's time after {self.step} steps")
        batch = batch.to(workers.device)
        with torch.autocast(workers.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            outputs = network(batch.features, batch.element_type)
        sums = loss_sums(outputs, batch, self.network.host_columns)
        terms = sums / denominators(tally[:2]).to(sums)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(terms @ self.weights * workers.world_size)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip)
        terms = workers.sum(terms.detach().double())
        values = torch.cat((terms, (terms @ self.weights.double())[None], norm.double()[None])).cpu()
        if not values.isfinite().all():
            raise StoppedEarlyError("diverged", f"loss {values[-2]:g}, gradient norm {values[-1]:g} at step {self.step + 1}")
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.training, self.step)
        self.optimiser.step()
        self._average()
        elements, padded = tally[_TALLY.index("elements")], tally[_TALLY.index("padded_elements")]
        self.sums += torch.cat((values, torch.stack((elements, padded))))
        self._seen += tally

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged:
            decay = min(self.training.ema_decay, (1 + self.step) / (10 + self.step))  # a young average follows quickly
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)

    # ---- bookkeeping

    def _record_training(self, progress: Progress) -> None:
        steps = (self.step - 1) % self.training.log_every_steps + 1
        means = (self.sums / steps).tolist()
        if self.step % self.training.log_every_steps == 0:  # else this is the last row, and a longer run goes on summing
            self.sums = torch.zeros_like(self.sums)
        seconds = max(1e-9, time.perf_counter() - self._clock)
        elements, _, events, _, _ = self._seen.tolist()
        values = dict(zip((*TERMS, "loss", "gradient_norm"), means[:-2], strict=True)) | {
            "learning_rate": learning_rate(self.training, self.step - 1),
            "events_per_s": events / seconds,
            "elements_per_s": elements / seconds,
            "padding_efficiency": means[-2] / max(1.0, means[-1]),
        }
        if self.metrics:
            self.metrics.add(self.step, self.epoch, "train", values)
        progress.report_training(self.step, values["loss"], values["events_per_s"])
        self._clock, self._seen = time.perf_counter(), torch.zeros_like(self._seen)

    @torch.no_grad()
    def _validate(self, progress: Progress) -> None:
        started = time.perf_counter()
        network = self.scored.eval()
        sums = torch.zeros(len(TERMS) + 2, dtype=torch.float64)
        for batch in self.valid_loader.once():
            counted = counts(batch)
            on_device = batch.to(self.workers.device)
            with torch.autocast(self.workers.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
                outputs = network(on_device.features, on_device.element_type)
            sums += torch.cat((loss_sums(outputs, on_device, network.host_columns).cpu().double(), counted))
        self.network.train()
        total = self.workers.sum(sums.to(self.workers.device)).cpu()
        terms = total[: len(TERMS)] / denominators(total[len(TERMS) :])
        loss = float(terms @ self.valid_weights)
        if not math.isfinite(loss):
            raise StoppedEarlyError("diverged", f"validation loss {loss:g} at step {self.step}")
        self._note_validation(loss)
        if self.metrics:
            self.metrics.add(self.step, self.epoch, "valid", dict(zip(TERMS, terms.tolist(), strict=True)) | {"loss": loss})
        progress.report_validation(self.step, loss, best=self.best["step"] == self.step)
        self._clock += time.perf_counter() - started  # speed is that of training

    def _note_validation(self, loss: float) -> None:
        self.valid_curve = [*self.valid_curve, [self.step, loss]]
        improved = self.best["valid_loss"] is None or loss < self.best["valid_loss"]
        if improved:
            self.best = {"step": self.step, "valid_loss": loss, "weights": self._scored_weights()}
        if self.step % self.training.valid_every_steps == 0:
            self.stale_validations = 0 if improved else self.stale_validations + 1

    def _stop_without_patience(self) -> None:
        patience = self.training.early_stopping_patience
        if patience and self.stale_validations >= patience:
            raise StoppedEarlyError("complete", f"early stopping after {self.step} steps: {patience} validations without improvement")

    def _save(self) -> None:
        if self.workers.is_main:
            write_checkpoint(self.spec.work_dir / CHECKPOINTS, self.state())
