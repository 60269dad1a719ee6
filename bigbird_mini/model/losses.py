"""What the heads are trained with: cross-entropies in nats, over the places that have a label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from ..attention.kernels import wide
from ..attention.plan import is_real

NO_LABEL = -100
LARGEST = 2**24  # scores of words that exist at once


def within(name: str, x: torch.Tensor, size: int, what: str, ignored: int | None = None) -> None:
    """ValueError for the first number of x that is not 0 to size - 1 (nor ``ignored``), by its place and value.

    Not asked while torch.compile traces, nor of tensors without numbers.
    """
    if torch.compiler.is_compiling() or not is_real(x):
        return
    wrong = (x < 0) | (x >= size)
    wrong = wrong if ignored is None else wrong & (x != ignored)
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        also = "" if ignored is None else f", and {ignored} for none"
        raise ValueError(f"{name}{place}={x[tuple(place)].item()} is outside {what}; allowed are 0 to {size - 1}{also}")


def checked_labels(labels: Any, shape: tuple[int, ...], size: int, what: str, name: str = "labels") -> torch.Tensor:
    """Labels as int64, of the shape and within 0 to size - 1 or -100; else TypeError or ValueError."""
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be a tensor of whole numbers")
    if labels.shape != shape:
        letters = "(B, n)" if len(shape) == 2 else "(B,)"
        raise ValueError(f"{name} have shape {tuple(labels.shape)}; they must be {letters} = {tuple(shape)}")
    within(name, labels, size, what, NO_LABEL)
    return labels.long()


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over the rows of logits (M, C) that have a label; 0 where none has one."""
    total = F.cross_entropy(logits.to(wide(logits)), labels, ignore_index=NO_LABEL, reduction="sum")
    return total / (labels != NO_LABEL).sum().clamp(min=1)


def word_loss(x: torch.Tensor, words: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """:func:`cross_entropy` of the scores x @ words.T + bias, without ever holding all of them.

    x: (M, hidden); words: (V, hidden); bias: (V,); labels: (M,), -100 where there is none. The scores of the labelled
    rows are made a few rows at a time, and once more in the backward pass. To torch.compile it is one operator.
    """
    return _word_loss(x, words.to(x.dtype), bias.to(x.dtype), labels)


@torch.library.custom_op("bigbird_mini::word_loss", mutates_args=())
def _word_loss(x: torch.Tensor, words: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return forward(x, words, bias, labels)


@_word_loss.register_fake
def _(x, words, bias, labels):  # noqa: ANN001, ANN202
    return x.new_empty((), dtype=wide(x))


@torch.library.custom_op("bigbird_mini::word_loss_backward", mutates_args=())
def _word_loss_backward(
    grad: torch.Tensor, x: torch.Tensor, words: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return backward(grad, x, words, bias, labels)


@_word_loss_backward.register_fake
def _(grad, x, words, bias, labels):  # noqa: ANN001, ANN202
    return tuple(torch.empty_like(given) for given in (x, words, bias))


def _remember(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple:
    return *_word_loss_backward(grad, *ctx.saved_tensors), None


_word_loss.register_autograd(_differentiate, setup_context=_remember)


def _pieces(x: torch.Tensor, words: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
    """The numbers of the labelled rows, so many at a time that their scores are not too many."""
    rows = (labels != NO_LABEL).nonzero().squeeze(1)
    return iter(rows.split(max(1, LARGEST // len(words)))) if len(rows) else iter(())


def forward(x: torch.Tensor, words: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of :func:`word_loss`, a scalar in float32 at least."""
    total = torch.zeros((), dtype=wide(x), device=x.device)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        for rows in _pieces(x, words, labels):
            scores = F.linear(x.index_select(0, rows), words, bias).to(total.dtype)  # (R, V)
            total += F.cross_entropy(scores, labels.index_select(0, rows), reduction="sum")
    return total / (labels != NO_LABEL).sum().clamp(min=1)


def backward(
    grad: torch.Tensor, x: torch.Tensor, words: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of x, words and bias: each score's is its probability, less 1 for the true word."""
    dx = torch.zeros_like(x)
    dwords, dbias = (torch.zeros_like(given, dtype=wide(x)) for given in (words, bias))
    share = grad / (labels != NO_LABEL).sum().clamp(min=1)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        for rows in _pieces(x, words, labels):
            given = x.index_select(0, rows)
            slope = F.linear(given, words, bias).to(dwords.dtype).softmax(-1)  # (R, V)
            true = labels.index_select(0, rows).unsqueeze(1)
            slope.scatter_add_(1, true, torch.full_like(true, -1, dtype=slope.dtype)).mul_(share)
            dbias += slope.sum(0)
            slope = slope.to(x.dtype)
            dx.index_copy_(0, rows, slope @ words)
            if slope.dtype == dwords.dtype:
                dwords.addmm_(slope.T, given)
            else:
                dwords += slope.T @ given
    return dx, dwords.to(words.dtype), dbias.to(bias.dtype)
