"""The honest controls of the genome job: what a model reaches that lets no token look at another.

A label that is the sum of weak evidence can be read without attention: by counting 3-mers, by averaging tokens, by
letting a short model vote. Each has the training, validation and test windows of the encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..data import ReplichoreSplit, leads, replichore_windows
from .genome_model import WORDS, StrandModel, strand_config, trimers

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # the one with the lowest validation loss is taken
LOGISTIC_WINDOWS = 20_000


def no_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """In place of attention: nothing is read, by anybody."""
    return torch.zeros_like(v)


def mean_pooling(bases_per_token: int) -> StrandModel:
    """The same encoder with no attention in it; its tokens are averaged."""
    return StrandModel(strand_config("W"), attention_fn=no_attention, bases_per_token=bases_per_token, mean=True)


# ---------------------------------------------------------------- 3-mers, logistic regression


def partners() -> torch.Tensor:
    """(64,) the number of each 3-mer's reverse complement."""
    number = torch.arange(WORDS)
    first, second, third = number // 16, number // 4 % 4, number % 4
    return (3 - third) * 16 + (3 - second) * 4 + (3 - first)


def strand_frequencies(bases: torch.Tensor) -> torch.Tensor:
    """Shares of the 64 3-mers on the strand (m, n) as given less those on the other strand: float64 (m, 64)."""
    found = trimers(bases)
    counts = torch.zeros(len(bases), WORDS, dtype=torch.float64)
    counts.scatter_add_(1, found, torch.ones_like(found, dtype=torch.float64))
    shares = counts / found.shape[1]
    return shares - shares[:, partners()]


def logistic_loss(weights: torch.Tensor, x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """Mean cross-entropy of the logits x @ weights in nats, plus penalty times the sum of the squared weights."""
    return F.binary_cross_entropy_with_logits(x @ weights, y) + penalty * weights.square().sum()


def fit_logistic(x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """The weights (features,) with the lowest loss. No bias: the other strand has minus x, and must get minus it."""
    weights = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def again() -> torch.Tensor:
        search.zero_grad()
        loss = logistic_loss(weights, x, y, penalty)
        loss.backward()
        return loss

    search.step(again)
    return weights.detach()


def logistic_regression(split: ReplichoreSplit, length: int, seed: int) -> tuple[dict[str, torch.Tensor], float]:
    """Logits of the "validation" and "test" windows of logistic regression on the 3-mers of both strands, and the
    penalty that had the lowest validation loss."""
    rng = np.random.default_rng(seed)
    half = [rng.choice(split.train[leads(split.train) == label], LOGISTIC_WINDOWS // 2) for label in (0, 1)]
    x, y = _features(np.concatenate(half), length)
    scale = x.std(0)
    own, truth = _features(split.validation, length)
    fits = [(fit_logistic(x / scale, y, penalty) / scale, penalty) for penalty in PENALTIES]
    weights, penalty = min(fits, key=lambda fit: logistic_loss(fit[0], own, truth, 0.0).item())
    return {"validation": own @ weights, "test": _features(split.test, length)[0] @ weights}, penalty


def _features(centres: np.ndarray, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, 64) and labels (m,), both float64, a few windows at a time."""
    few = max(1, 2_000_000 // length)
    parts = (replichore_windows(centres[i : i + few], length)[0] for i in range(0, len(centres), few))
    return torch.cat([strand_frequencies(part) for part in parts]), torch.from_numpy(leads(centres)).double()
