"""Checkpoints of a training: step_00000120/ with weights, optimiser and state, complete or not there at all.

A checkpoint is written into a hidden folder beside its place, brought to the disk, and renamed when all of it is there.
SHA256SUMS holds the checksum of each file (``sha256sum -c SHA256SUMS`` checks them by hand). No pickles: tensors are
safetensors, the rest is JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import random
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

MODEL, OPTIMIZER, STATE, SUMS = "model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"
_STEP = re.compile(r"step_(\d{8,})")
_HIDDEN = ".step_"  # what is being written, or thrown away
log = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """A training after a step: weights and optimiser by parameter name, and all else as JSON holds it."""

    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first, good or damaged."""
    found = [path for path in folder.iterdir() if _STEP.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """120 of step_00000120."""
    return int(path.name.removeprefix("step_"))


# ---------------------------------------------------------------- writing


def check_folder(folder: Path, size: int, keep: int) -> None:
    """Make the folder if only its last part is missing, and see that it can be written and has room enough.

    size: bytes of a checkpoint. At the worst, ``keep`` of them lie there while one more is written.
    """
    try:
        folder.mkdir(exist_ok=True)
        trial = folder / f"{_HIDDEN}trial.{secrets.token_hex(4)}"
        trial.mkdir()
        trial.rmdir()
        free = shutil.disk_usage(folder).free
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {folder.parent} to make {folder.name!r} in, for checkpoints (looked from "
            f"{Path.cwd()}); make it first, or give another"
        ) from error
    except OSError as error:
        raise type(error)(
            f"{folder} cannot hold checkpoints ({error.strerror or error}); give a folder that you may write to"
        ) from error
    more = max(1, keep + 1 - len(checkpoints(folder)))
    if free < more * size:
        raise OSError(
            f"{folder} has {_amount(free)} free, and {more} checkpoints of {_amount(size)} must fit (keep={keep}, and "
            "one while it is written); make room, keep fewer, or give a folder on another disk"
        )


def _amount(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{size:.3g} {unit}"


def write(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    """Write the checkpoint of a step, then throw away all but the ``keep`` newest. Returns where it lies.

    Raises OSError with one sentence; what was there before is then as it was.
    """
    place = folder / f"step_{step:08d}"
    beside = folder / f".{place.name}.{secrets.token_hex(4)}"
    try:
        beside.mkdir()
        _fill(beside, checkpoint)
        if place.exists():  # a damaged one
            _discard(place)
        beside.rename(place)
        _to_disk(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"the checkpoint of step {step} could not be written to {folder} ({reason}); the ones "
            "before it are as they were. Make room, then save() or run() again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    every = checkpoints(folder)
    later = [path for path in every if step_of(path) > step]  # damaged, or they would have been resumed from
    for path in later + every[len(later) + keep :]:
        _discard(path)
    for left_over in folder.glob(f"{_HIDDEN}*"):  # by a kill in the middle of a write
        shutil.rmtree(left_over, ignore_errors=True)
    return place


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    save_file(storable(checkpoint.model), folder / MODEL, metadata={"format": "pt"})
    save_file(storable(checkpoint.optimizer), folder / OPTIMIZER, metadata={"format": "pt"})
    (folder / STATE).write_text(json.dumps(checkpoint.state) + "\n", encoding="utf-8")
    sums = "".join(f"{_checksum(folder / name)}  {name}\n" for name in (MODEL, OPTIMIZER, STATE))
    (folder / SUMS).write_text(sums, encoding="utf-8", newline="\n")
    for file in folder.iterdir():
        with file.open("r+b") as complete:
            os.fsync(complete.fileno())
    _to_disk(folder)


def storable(tensors: Tensors) -> Tensors:
    """CPU tensors without gaps, no two of which share memory (tied weights are stored once for each name)."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return found


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_disk(folder: Path) -> None:
    """Bring the names in a folder to the disk; Windows has no way to ask for it, and does it by itself."""
    if os.name != "nt":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _discard(place: Path) -> None:
    """Away under its name in one move; a kill half way through leaves nothing that looks like a checkpoint."""
    hidden = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    place.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


# ---------------------------------------------------------------- reading


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where there is none at all. Each damaged one is named in a warning.

    Raises ValueError where all are damaged.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            check(path)
        except ValueError as error:
            log.warning("%s; the one before it is tried", error)
        else:
            return path
    if found:
        raise ValueError(f"all {len(found)} checkpoints in {folder} are damaged; start again in another folder")
    return None


def check(path: Path) -> None:
    """Is every file there, and as it was written? If not, ValueError names it."""
    try:
        lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
        for name in (MODEL, OPTIMIZER, STATE):
            if _checksum(path / name) != sums.get(name):
                raise ValueError(f"the checkpoint {path} is damaged: {name} is not what was written")
    except OSError as error:
        name = Path(error.filename or SUMS).name
        raise ValueError(f"the checkpoint {path} is damaged: {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the checkpoint {path} is damaged: {SUMS} is no text") from error


def read(path: Path) -> Checkpoint:
    """A checkpoint that :func:`check` found whole. Tensors are mapped from the files: copy what is to stay."""
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    return Checkpoint(load_file(path / MODEL), load_file(path / OPTIMIZER), state)


# ---------------------------------------------------------------- random states


def random_states(device: torch.device) -> dict[str, Any]:
    """The global random states of torch, NumPy and Python, as JSON holds them."""
    kind, keys, *rest = np.random.get_state()
    states = {"torch": _text(torch.get_rng_state()), "numpy": [kind, keys.tolist(), *rest], "python": random.getstate()}
    if device.type == "cuda":
        states["cuda"] = _text(torch.cuda.get_rng_state(device))
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """The way back. A CUDA state without a CUDA device is left out."""
    torch.set_rng_state(_bytes(states["torch"]))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, numbers, spare = states["python"]
    random.setstate((version, tuple(numbers), spare))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_bytes(states["cuda"]), device)


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
