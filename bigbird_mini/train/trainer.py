"""Trainer: one step() and what keeps it going: progress, evaluation, checkpoints, resuming, stopping.

Everything that a step computes follows from the weights, the optimiser and the numbers of its micro-batches, and from
nothing else: so a training that was killed and resumed ends with the same bits as one that was not, and one that is
shared by several processes takes the same steps as one process alone.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from . import saving
from .contexts import alone, drawn_from, or_nothing, undivided
from .history import History, Record
from .matching import changes, config_of, load_moments, misfits, moments
from .settings import TrainSettings, device_of
from .workers import join, place_of_this_process

Batch = Mapping[str, Any]
_EVALUATION = -1  # stands where the number of a micro-batch does: an evaluation draws the same each time
log = logging.getLogger(__name__)


class Diverged(ValueError):
    """The loss or a gradient is no number any more. The weights are those of the last step that was sound."""


def labelled(batch: Batch) -> int:
    """How much a micro-batch weighs: its labels other than -100, as many as its mean loss is the mean of; or its rows.

    Weighted by this, the mean losses of micro-batches add up to the mean loss of all of them as one batch, and so do
    their gradients. The plain average would not do: it favours the labels of a micro-batch that has few.
    """
    labels = batch.get("labels")
    if isinstance(labels, torch.Tensor):
        return int((labels != -100).sum())
    return len(next(value for value in batch.values() if isinstance(value, torch.Tensor)))


class Trainer:
    """Trains a model, one ``step()`` after the other, by hand or with ``run()``; both may be mixed and stopped.

    Under torchrun each process makes the same Trainer and takes its share of the micro-batches of every step.

    Args:
        model: anything whose ``model(**batch).loss`` is the mean loss of a batch. It is moved to the device.
        batches: from the number of a micro-batch (0, 1, 2, ...) to a dict of tensors. It must give the same for the
            same number; that makes resuming exact.
        settings: see TrainSettings.
        folder: for checkpoints; None keeps none. It is made if only its last part is missing.
        evaluate: from the model, in evaluation mode and without gradients, to a dict of numbers, which joins the
            record of its step. With several processes each calls it.
        callbacks: each called as fn(trainer, record) after every step, in the first process.
        weight: from a batch to its weight in a step; 0 for one without labels.

    Attributes: model, settings, device, history (a list of records), steps_done, position (micro-batches taken).

    Raises ValueError and TypeError for what cannot work, before the first step where that can be known.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[int], Batch],
        settings: TrainSettings,
        *,
        folder: str | Path | None = None,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        callbacks: Sequence[Callable[[Trainer, Record], object]] = (),
        weight: Callable[[Batch], float] = labelled,
    ) -> None:
        if not callable(batches):
            raise TypeError(
                f"batches must be a function from the number of a micro-batch to a dict, not {type(batches).__name__}; "
                "of a list: lambda number: batches[number % len(batches)]"
            )
        rank, world, local = place_of_this_process()
        if settings.accumulation % world:
            raise ValueError(
                f"accumulation={settings.accumulation} micro-batches cannot be shared evenly by {world} processes; "
                f"make it a multiple of {world}: it counts those of one step, over all processes together"
            )
        self.settings, self.batches, self.evaluate, self.weight = settings, batches, evaluate, weight
        self.callbacks = list(callbacks)
        self.folder = None if folder is None else Path(folder).expanduser()
        self.device = device_of(settings.device, local)
        self.workers = join(self.device, rank, world)
        model.to(self.device)
        self.model: nn.Module = getattr(model, "_orig_mod", model)  # without torch.compile's wrapper
        self._shared = self.workers.share(model)  # what runs
        self.optimizer = self._adamw()
        self.history = History()
        self.steps_done = self.position = 0
        self._saved = 0  # the step of the last checkpoint
        self._ready = False  # has the folder been looked at?
        self._stop = threading.Event()
        self._one = threading.RLock()  # held by the thread that takes steps
        self._lengths: dict[str, float] = {}  # of the gradients of the last step

    def _adamw(self) -> torch.optim.AdamW:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if not trained:
            raise ValueError("the model has no parameter to train; set requires_grad on those that shall learn")
        matrices = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.settings.weight_decay}, {"params": others}]
        return torch.optim.AdamW(groups, self.settings.rate(1), self.settings.betas, weight_decay=0.0)

    # ---------------------------------------------------------------- one step

    @alone
    def step(self) -> Record:
        """Take one step: all its micro-batches, one update; then evaluation, checkpoint and callbacks, where due.

        Returns its record: step (from 1), loss (the mean over all labels of the step), learning_rate, gradient_norm
        (before clipping), seconds (without evaluation and checkpoint), and what was evaluated. What stops it before
        the update (Ctrl-C, a bad batch, a loss that is no number) leaves everything as after the step before.

        Raises Diverged, ValueError after the last step, and what model, batches, evaluate or callbacks raise.
        """
        start, step = time.perf_counter(), self.steps_done + 1
        if step > self.settings.steps:
            raise ValueError(f"all {self.settings.steps} steps are done; for more, resume with a larger steps=")
        self._look_at_folder()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        with or_nothing(self.model):
            loss = self._backward()
            norm = self._clipped(loss)
        with undivided():
            self.optimizer.step()
            self.steps_done = step
            self.position += self.settings.accumulation
            record = {"step": step, "loss": loss, "learning_rate": self.settings.rate(step), "gradient_norm": norm}
            record["seconds"] = time.perf_counter() - start
            self.history.append(record)
        if self._due(self.settings.evaluate_every) and self.evaluate:
            record |= self._evaluated(record)
        if self._due(self.settings.checkpoint_every) and self.folder:
            self.save()
        for callback in self.callbacks if self.workers.first else ():
            callback(self, record)
        return record

    def _backward(self) -> float:
        """The loss of a step, and its gradients: of its micro-batches as if they were one batch."""
        first, behind = self.position, self.position + self.settings.accumulation
        numbers = range(first + self.workers.rank, behind, self.workers.world)
        batches = [self._batch(number) for number in numbers]
        weights = [self.weight(batch) for batch in batches]
        (total,) = self.workers.total(sum(weights))
        if not total > 0:
            raise ValueError(f"micro-batches {first} to {behind - 1} have no label at all; there is nothing to learn")
        self._shared.train()
        self.optimizer.zero_grad()
        mean: float | torch.Tensor = 0.0
        for number, batch, weight in zip(numbers, batches, weights, strict=True):
            with (
                drawn_from(self.settings.seed, number, self.device),
                self.workers.quiet(self._shared, wanted=number != numbers[-1]),
            ):
                loss = self._loss(batch) * (weight / total)
                (loss * self.workers.world).backward()  # the processes' gradients are averaged, and a sum is wanted
            mean += loss.detach()
        return self.workers.total(mean)[0]

    def _batch(self, number: int) -> Batch:
        try:
            batch = self.batches(number)
        except Exception as error:
            error.add_note(f"This was micro-batch {number}, of step {self.steps_done + 1}.")
            raise
        if not isinstance(batch, Mapping) or not any(isinstance(value, torch.Tensor) for value in batch.values()):
            raise TypeError(f"batches({number}) must be a dict of tensors, not {type(batch).__name__}")
        return batch

    def _loss(self, batch: Batch) -> torch.Tensor:
        there = {
            name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        with self._autocast():
            out = self._shared(**there)
        loss = getattr(out, "loss", None)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise ValueError(
                f"model(**batch).loss must be one number with a gradient; {type(out).__name__} of a batch with "
                f"{', '.join(batch)} has {'none' if loss is None else repr(loss)}. Are the labels in the batch?"
            )
        return loss.squeeze()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _clipped(self, loss: float) -> float:
        """The length of the whole gradient, which is cut to ``clip`` afterwards; raises Diverged."""
        named = {name: p for name, p in self.model.named_parameters() if p.grad is not None}
        each = torch.stack([p.grad.norm() for p in named.values()]).tolist()
        lengths = dict(zip(named, each, strict=True))
        whole = math.sqrt(sum(length * length for length in each))
        if not (math.isfinite(loss) and math.isfinite(whole)):
            raise Diverged(self._what_went_wrong(loss, lengths))
        self._lengths = lengths
        clip = self.settings.clip
        if clip is not None and whole > clip:
            for p in named.values():
                p.grad *= clip / whole
        return whole

    def _what_went_wrong(self, loss: float, lengths: dict[str, float]) -> str:
        given = self.settings
        bad = [name for name, length in lengths.items() if not math.isfinite(length)]
        said = f"step {self.steps_done + 1}: the loss is {loss}"
        if len(bad) == len(lengths):
            said += ", and no gradient is finite"
        else:
            name = bad[0] if bad else max(lengths, key=lengths.__getitem__)
            said += f"; the largest gradient is that of {name}, its length {lengths[name]:.3g}"
        if self._lengths:
            name = max(self._lengths, key=self._lengths.__getitem__)
            said += f"; in the step before, the largest was that of {name}, its length {self._lengths[name]:.3g}"
        said += f". The weights are those after step {self.steps_done}"
        if self._saved:
            said += f", and resume(strict=False) takes checkpoint step_{self._saved:08d} with other settings"
        half = "precision='float32', " if given.precision == "bfloat16" else ""
        return (
            f"{said}. Try a lower learning_rate (now {given.learning_rate}), a longer warmup (now {given.peak} steps), "
            f"a smaller clip (now {given.clip}), {half}and look at the micro-batches {self.position} to "
            f"{self.position + given.accumulation - 1}"
        )

    def _evaluated(self, record: Record) -> Record:
        self.model.eval()
        with torch.no_grad(), drawn_from(self.settings.seed, _EVALUATION, self.device), self._autocast():
            found = self.evaluate(self.model)
        if not isinstance(found, Mapping):
            raise TypeError(f"evaluate(model) must return a dict of numbers, not {type(found).__name__}")
        taken = [name for name in found if name in record]
        if taken:
            raise ValueError(f"evaluate(model) returned {taken[0]!r}, which every record has already; use another name")
        return {str(name): float(value) for name, value in found.items()}

    def _due(self, every: int | None) -> bool:
        return self.steps_done == self.settings.steps or (every is not None and self.steps_done % every == 0)

    # ---------------------------------------------------------------- many steps

    @alone
    def run(self, steps: int | None = None, *, progress: bool = True) -> History:
        """Take the steps that are left, or so many of them, with a line of progress, and leave a checkpoint.

        ``stop()``, from a callback or another thread, ends it after the step under way. Ctrl-C ends it at once: the
        step under way is given up, a checkpoint of the last whole one is written, and KeyboardInterrupt goes on with a
        note that says where; so do the errors of batches, evaluate and callbacks.
        """
        goal = self.settings.steps if steps is None else min(self.settings.steps, self.steps_done + steps)
        self._look_at_folder()
        bar = tqdm(
            total=self.settings.steps,
            initial=self.steps_done,
            unit="step",
            mininterval=0.5,
            disable=not (progress and self.workers.first),
        )
        try:
            with bar:
                while self.steps_done < goal and not self._told_to_stop():
                    record = self.step()
                    bar.set_postfix(loss=f"{record['loss']:.4g}", rate=f"{record['learning_rate']:.2g}", refresh=False)
                    bar.update()
            self._save_if_new()
        except BaseException as error:  # Ctrl-C, or a batch, evaluate, a callback that failed
            try:
                if not isinstance(error, Diverged):
                    self._save_if_new()
            except OSError as another:
                error.add_note(str(another))
            kept = f"checkpoint step_{self._saved:08d} is in {self.folder}" if self._saved else "no checkpoint is kept"
            error.add_note(f"{self.steps_done} of {self.settings.steps} steps are done; {kept}.")
            raise
        finally:
            self._stop.clear()
        return self.history

    def stop(self) -> None:
        """End the run under way after its step, from any thread; if none is, the next returns at once."""
        self._stop.set()

    def _told_to_stop(self) -> bool:
        """Was any of the processes?"""
        return self.workers.total(float(self._stop.is_set()))[0] > 0

    # ---------------------------------------------------------------- checkpoints

    def _look_at_folder(self) -> None:
        """Before the first step, see that a checkpoint will find its place."""
        if self._ready or self.folder is None or not self.workers.first:
            return
        trained = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        size = sum(tensor.nbytes for tensor in self.model.state_dict().values()) + 2 * trained
        size += 100_000 + 250 * self.settings.steps  # the rest of the state, and a line of history for each step
        saving.check_folder(self.folder, size, self.settings.keep)
        older = saving.checkpoints(self.folder)
        if older and self.steps_done == 0:
            raise FileExistsError(
                f"{self.folder} holds checkpoints already, the newest {older[0].name}: call resume() to go on from it, "
                "or give another folder"
            )
        self._ready = True

    def save(self) -> Path:
        """Write the checkpoint of the last step, unless it is there, and return where it lies; older ones may go.

        Written by the first process only. Raises OSError where there is no room for it, and ValueError without a
        folder, before the first step, or where a weight is no number; the checkpoints before are then as they were.
        """
        if self.folder is None or self.steps_done == 0:
            missing = "folder for checkpoints; make the Trainer with folder=" if self.steps_done else "step done yet"
            raise ValueError(f"nothing can be saved: there is no {missing}")
        if self.workers.first and self._saved != self.steps_done:
            self._look_at_folder()
            broken = [name for name, p in self.model.named_parameters() if not p.isfinite().all()]
            if broken:
                raise Diverged(f"step {self.steps_done}: the update left no number in {broken[0]}; it is not saved")
            saving.write(self.folder, self.steps_done, self._checkpoint(), self.settings.keep)
        self._saved = self.steps_done
        return self.folder / f"step_{self.steps_done:08d}"

    def _save_if_new(self) -> None:
        if self.folder is not None and self.steps_done:
            self.save()

    def _checkpoint(self) -> saving.Checkpoint:
        state = {
            "step": self.steps_done,
            "micro_batch": self.position,
            "settings": asdict(self.settings),
            "config": config_of(self.model),
            "random": saving.random_states(self.device),
            "history": self.history,
        }
        return saving.Checkpoint(self.model.state_dict(), moments(self.model, self.optimizer), state)

    @alone
    def resume(self, *, strict: bool = True) -> int:
        """Go on from the newest whole checkpoint of the folder; returns its step, or 0 where there is none.

        What follows has the same bits, on a CPU, as if there had been no break. Damaged checkpoints are named in a
        warning and passed over. With several processes, all must see the folder.

        strict: refuse a checkpoint that was trained with other settings, or a model with another config (more steps, a
        lower learning rate ...); False takes the new ones.

        Raises ValueError where all checkpoints are damaged, or this one does not fit; then nothing has changed.
        """
        if self.folder is None:
            raise ValueError("there is no folder to resume from; make the Trainer with folder=")
        found = saving.newest_good(self.folder) if self.workers.first else None
        step = self.workers.agreed(saving.step_of(found) if found else 0)
        if step == 0:
            return 0
        path = self.folder / f"step_{step:08d}"
        checkpoint = saving.read(path)
        state = checkpoint.state
        wrong = misfits(self.model, checkpoint)
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ValueError(f"{path} does not fit this model: {wrong[0]}{more}")
        other = changes(self.model, self.settings, checkpoint)
        if other and strict:
            raise ValueError(f"{path} was trained with {'; '.join(other)}. resume(strict=False) takes the new ones")
        self.model.load_state_dict(checkpoint.model)
        load_moments(self.model, self.optimizer, checkpoint.optimizer)
        saving.set_random_states(state["random"], self.device)
        self.steps_done = self._saved = step
        self.position = state["micro_batch"]
        self.history[:] = state["history"]
        log.info("resumed from %s", path)
        return step
