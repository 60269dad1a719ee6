"""Batches of documents of like length, so that little is computed on padding.

A batch is a function of its number alone: batch 1000 is the same whether the 999 before it were asked for or not. That
is what lets a training be resumed, or shared by several processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

_Document = torch.Tensor | Mapping[str, Any]
_FILL = {"labels": -100}  # what pads a field; ids have their own, the rest 0


def batches_by_length(
    documents: Sequence[_Document],
    tokens_per_batch: int,
    *,
    seed: int = 0,
    pad_id: int = 0,
    max_padding: float = 0.1,
    lengths: Sequence[int] | None = None,
) -> BatchesByLength:
    """A function from a number (0, 1, 2, ...) to a batch: every document once an epoch, in another order each time.

    Documents are sorted into classes whose shortest is at least ``1 - max_padding`` as long as the longest; each epoch
    shuffles every class, cuts it into batches, and shuffles the batches. So of no batch is more than ``max_padding``
    padding. The order follows from seed and epoch; global random states are neither read nor changed.

    documents: each an int tensor (n,), or a dict with ``input_ids`` (n,) and more: tensors (n,) are padded beside it
        (``labels`` with -100, the rest with 0), single numbers are stacked. They are asked for when they are needed.
    tokens_per_batch: the most tokens of a batch, padding included.
    lengths: the tokens of each document, where counting them would mean loading them all.

    A batch is a dict: input_ids (B, n) int64, attention_mask (B, n) bool, True for real tokens, and the other fields.
    The result also has ``per_epoch``, ``documents_of(number)`` and ``padding(epoch)``.

    Raises ValueError for an empty document, and for one that is longer than a batch may be.
    """
    return BatchesByLength(documents, tokens_per_batch, seed, pad_id, max_padding, lengths)


class BatchesByLength:
    """See :func:`batches_by_length`. per_epoch: how many batches hold every document once."""

    def __init__(
        self,
        documents: Sequence[_Document],
        tokens_per_batch: int,
        seed: int,
        pad_id: int,
        max_padding: float,
        lengths: Sequence[int] | None,
    ) -> None:
        if not 0 <= max_padding < 1:
            raise ValueError(f"max_padding={max_padding} must be at least 0 and below 1")
        if len(documents) == 0:
            raise ValueError("there are no documents to make batches of")
        if lengths is not None and len(lengths) != len(documents):
            raise ValueError(f"{len(lengths)} lengths for {len(documents)} documents")
        self.documents, self.seed, self.pad_id = documents, seed, pad_id
        self.lengths = np.array([len(_ids(document)) for document in documents] if lengths is None else lengths)
        for wrong, allowed in (
            (self.lengths < 1, "at least 1 is needed; leave it out"),
            (self.lengths > tokens_per_batch, f"tokens_per_batch={tokens_per_batch}; cut it, or allow larger batches"),
        ):
            if wrong.any():
                first = int(wrong.argmax())
                raise ValueError(f"document {first} has {self.lengths[first]} tokens: {allowed}")
        self._classes = _classes(self.lengths, max_padding)
        self._sizes = [tokens_per_batch // int(self.lengths[members].max()) for members in self._classes]
        self.per_epoch = sum(-(-len(c) // size) for c, size in zip(self._classes, self._sizes, strict=True))
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def __call__(self, number: int) -> dict[str, torch.Tensor]:
        """Batch ``number``, from 0 on without end: epoch after epoch."""
        places = self.documents_of(number)
        documents = [self.documents[place] for place in places]
        for place, document in zip(places, documents, strict=True):
            if len(_ids(document)) != self.lengths[place]:
                said = f"document {place} has {len(_ids(document))} tokens, and lengths says {self.lengths[place]}"
                raise ValueError(said)
        return _stacked(documents, self.pad_id)

    def documents_of(self, number: int) -> list[int]:
        """The places in ``documents`` of those that make a batch."""
        if number < 0:
            raise ValueError(f"batch {number} does not exist: they are counted from 0")
        epoch, place = divmod(number, self.per_epoch)
        return self._epoch(epoch)[place].tolist()

    def padding(self, epoch: int = 0) -> float:
        """The share of padding among all tokens of an epoch's batches."""
        sizes = [self.lengths[batch] for batch in self._epoch(epoch)]
        return 1 - float(self.lengths.sum()) / sum(len(batch) * int(batch.max()) for batch in sizes)

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        """The documents of each batch of an epoch."""
        digest = hashlib.blake2b(f"{self.seed} {epoch}".encode(), digest_size=16).digest()
        rng = np.random.RandomState(np.frombuffer(digest, "<u4"))  # NumPy promises never to change what it draws
        cut = []
        for members, size in zip(self._classes, self._sizes, strict=True):
            cut += np.split(rng.permutation(members), range(size, len(members), size))
        return [cut[place] for place in rng.permutation(len(cut))]


def _classes(lengths: np.ndarray, max_padding: float) -> list[np.ndarray]:
    """The places of the longest document and of all nearly as long; then of those that are left; and so on."""
    order = np.argsort(-lengths, kind="stable")
    found = []
    while len(order):
        longest = lengths[order[0]]
        like = int((lengths[order] >= longest * (1 - max_padding)).sum())
        found.append(order[:like])
        order = order[like:]
    return found


def _ids(document: _Document) -> torch.Tensor:
    ids = document["input_ids"] if isinstance(document, Mapping) else document
    ids = torch.as_tensor(ids)
    if ids.ndim != 1:
        raise ValueError(f"the ids of a document must be (n,), not {tuple(ids.shape)}")
    return ids


def _stacked(documents: list[_Document], pad_id: int) -> dict[str, torch.Tensor]:
    """Fields of documents, (n,) or one number each, to fields of a batch, (B, longest) or (B,)."""
    fields = [{**d} if isinstance(d, Mapping) else {"input_ids": d} for d in documents]
    sizes = torch.tensor([len(_ids(d)) for d in documents])
    batch = {"attention_mask": torch.arange(int(sizes.max())) < sizes[:, None]}  # (B, n)
    for name in dict.fromkeys(name for field in fields for name in field):
        try:
            values = [torch.as_tensor(field[name]) for field in fields]
        except KeyError:
            raise ValueError(f"a document has no {name!r}, which others have") from None
        fill = pad_id if name == "input_ids" else _FILL.get(name, 0)
        if name == "input_ids":
            values = [value.long() for value in values]
        if all(value.ndim == 0 for value in values):
            batch[name] = torch.stack(values)
            continue
        for value, size in zip(values, sizes.tolist(), strict=True):
            if value.shape != (size,):
                raise ValueError(f"{name} of a document has shape {tuple(value.shape)}, and its ids ({size},)")
        batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)
    return batch
