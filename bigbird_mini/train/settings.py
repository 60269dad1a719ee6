"""TrainSettings: everything that decides what a training does, and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

DECAYS = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16")
# What may change from one sitting to the next without changing what is computed.
FREE = ("device", "checkpoint_every", "keep", "evaluate_every")
_WHOLE = {"steps": 1, "accumulation": 1, "seed": 0, "checkpoint_every": 1, "keep": 1, "evaluate_every": 1}  # and least


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The optimiser is AdamW; the paper's base model: Adam, learning rate 1e-4, 10,000 steps of warm-up,
    linear decay, 256 documents a step (Zaheer et al. 2020, table 8 and appendix E.1).

    Raises ValueError for a value that cannot be, with what is allowed.
    """

    steps: int = 1000  # updates of the weights
    learning_rate: float = 1e-4  # at its highest
    warmup: float = 0  # steps in which the rate rises in a straight line; below 1: that share of all steps
    decay: str = "linear"  # how it falls afterwards, to nothing after the last step; "cosine"; or "constant"
    weight_decay: float = 0.01  # of matrices only: neither of biases nor of norms
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0  # the length of the gradient is cut to this; None: it is left alone
    accumulation: int = 1  # micro-batches of one step, over all processes together
    precision: str = "float32"  # "bfloat16": automatic mixed precision, weights and optimiser stay float32
    device: str = "auto"  # CUDA, else Apple's GPU, else the CPU; or "cpu", "cuda:1" ...
    seed: int = 0  # of dropout
    checkpoint_every: int | None = None  # steps; None: only when a run ends
    keep: int = 2  # newest checkpoints that stay
    evaluate_every: int | None = None  # steps; None: only after the last one

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if value is None and name.endswith("_every"):
                continue
            if type(value) is not int or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number, at least {least}")
        self._check("learning_rate", lambda rate: rate > 0, "a number above 0")
        self._check("weight_decay", lambda decay: decay >= 0, "a number, at least 0")
        self._check("clip", lambda clip: clip is None or clip > 0, "a number above 0, or None")
        self._check(
            "warmup",
            lambda warmup: 0 <= warmup < 1 or (1 <= warmup <= self.steps and warmup == int(warmup)),
            f"a share below 1, or a whole number of steps up to steps={self.steps}",
        )
        self._check(
            "betas", lambda two: len(two) == 2 and all(0 <= b < 1 for b in two), "two numbers, at least 0 and below 1"
        )
        object.__setattr__(self, "betas", tuple(self.betas))
        for name, allowed in (("decay", DECAYS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                known = ", ".join(map(repr, allowed))
                raise ValueError(f"{name}={getattr(self, name)!r} is not known; allowed: {known}")

    def _check(self, name: str, good: Callable[[Any], bool], allowed: str) -> None:
        value = getattr(self, name)
        try:
            fine = good(value) and value != math.inf
        except TypeError:  # a word, or nothing, where a number belongs
            fine = False
        if not fine:
            raise ValueError(f"{name}={value!r} must be {allowed}")

    @property
    def peak(self) -> int:
        """The step of the highest rate: the last of the warm-up."""
        warmup = round(self.warmup * self.steps) if self.warmup < 1 else int(self.warmup)
        return max(1, warmup)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1; it rises to the peak, and would be 0 one step after the last."""
        if step <= self.peak:
            return self.learning_rate * step / self.peak
        done = (step - self.peak) / (self.steps + 1 - self.peak)  # 0 at the peak, below 1 at the last step
        fall = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
        return self.learning_rate * fall[self.decay]

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """'clip=1.0, here 0.5' for each setting of a checkpoint that decides what is computed and is another."""
        mine = asdict(self) | {"betas": list(self.betas)}  # as JSON gives it back
        return [
            f"{name}={stored.get(name)!r}, here {value!r}"
            for name, value in mine.items()
            if name not in FREE and stored.get(name) != value
        ]


def device_of(wanted: str, local_rank: int = 0) -> torch.device:
    """The device of that name, or ValueError where this machine has none; of several GPUs each process has its own."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device={wanted!r} is not known; allowed: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank)
    here = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}[device.type]
    if (device.index or 0) >= here:
        raise ValueError(
            f"device={str(device)!r} is not there: PyTorch sees {here} of that kind; use device='auto' (the best there "
            "is) or 'cpu'"
        )
    return device
