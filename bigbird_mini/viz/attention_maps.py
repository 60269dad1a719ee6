"""The attention weights of a layer as a viewer needs them: by block pair, by kind, by token.

All of it from the block layout that bigbird_mini.attention returns: what is not read is not stored, and nothing here
has n x n numbers. Only full attention has, and is computed where that is affordable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from bigbird_mini.attention import BlockWeights, attention
from bigbird_mini.model import BigBirdModel
from bigbird_mini.pattern import KIND_NAMES, NONE, BlockPattern
from bigbird_mini.viz.attention_text import Text

KINDS = len(KIND_NAMES)
LARGEST = 2048  # blocks
MOST = 2**28  # weights of a layer that are computed at all
MOST_FULL = 2**26  # ... with full attention
_AT_ONCE = 2**25  # weights: up to so many, all layers are computed together
_KEPT = 2**30  # bytes of weights that are kept for later


class Masses(NamedTuple):
    """The block pairs that a head reads. cells: (P,) int32, query block x N + key block, ascending; share: (P,)
    float32, the part of a query's weight that goes there, on average over the block's real queries; kinds: (P,) uint8.
    """

    cells: np.ndarray
    share: np.ndarray
    kinds: np.ndarray


class Maps:
    """The weights of one layer for one text.

    weights: of one document. pattern: of the layer, whose kinds are told apart; NONE is what lies outside it (only full
    attention reads there). real: (N, b) bool, the tokens that exist.
    """

    def __init__(self, weights: BlockWeights, pattern: BlockPattern, real: torch.Tensor) -> None:
        self.weights, self.pattern, self.real = weights, pattern, real
        self.heads, self.n_blocks = weights.shape[1], weights.n_blocks
        self.block_size = weights.shape[2] // weights.n_blocks
        self._masses: dict[int, Masses] = {}
        self._found = {
            int(row): (part, at) for part in weights.parts for at, row in enumerate(part.rows.tolist())
        }  # query block -> where its weights are

    @property
    def nbytes(self) -> int:
        return sum(part.values.nbytes for part in self.weights.parts)

    @cached_property
    def _kinds(self) -> np.ndarray:
        return self.pattern.kinds().numpy()  # (1 or H, N, N)

    def kinds(self, head: int) -> np.ndarray:
        """uint8 (N, N), of the pattern."""
        return self._kinds[head if len(self._kinds) > 1 else 0]

    def masses(self, head: int) -> Masses:
        """Of every block pair that the head reads, by which share of a query's weight."""
        if head not in self._masses:
            N, cells, shares = self.n_blocks, [], []
            for part in self.weights.parts:
                real = self.real[part.rows.cpu()].to(part.values.device)  # (R, b)
                given = part.values[0, head].sum(-1, dtype=torch.float32) * real.unsqueeze(-1)  # (R, b, K)
                share = given.sum(1) / real.sum(1, keepdim=True).clamp(min=1)  # (R, K)
                keys = part.keys[head if len(part.keys) > 1 else 0]  # (R, K)
                there = (keys < N) & real.any(1, keepdim=True)
                cells.append((part.rows.unsqueeze(-1) * N + keys)[there].cpu())
                shares.append(share[there].cpu())
            cell, share = torch.cat(cells).numpy(), torch.cat(shares).numpy()
            order = np.argsort(cell)
            cell, share = cell[order].astype(np.int32), share[order]
            kinds = self.kinds(head).ravel()[cell]
            read = (kinds != NONE) | (share > 0)  # the dense backend also lists what is not read
            self._masses[head] = Masses(cell[read], share[read], kinds[read])
        return self._masses[head]

    @cached_property
    def queries(self) -> np.ndarray:
        """int64 (N,): the real tokens of each block."""
        return self.real.sum(1).numpy()

    @cached_property
    def shares(self) -> np.ndarray:
        """(H, kinds): which part of all weight each head gives to keys of each kind."""
        found = np.zeros((self.heads, KINDS))
        for head in range(self.heads):
            cells, share, kinds = self.masses(head)
            found[head] = np.bincount(kinds, share * self.queries[cells // self.n_blocks], KINDS)
        return found / self.queries.sum()

    @cached_property
    def even(self) -> np.ndarray:
        """(H, kinds): the same for a head whose scores are all equal; says how many keys of each kind there are."""
        times = self.pattern.multiplicity().numpy()  # (1 or H, N, N)
        found = np.zeros((len(self._kinds), KINDS))
        for head, kinds in enumerate(self._kinds):
            keys = (kinds != NONE) * times[head if len(times) > 1 else 0] * self.queries  # (N, N)
            share = keys / keys.sum(1, keepdims=True).clip(min=1)
            for kind in range(KINDS):
                found[head, kind] = self.queries @ (share * (kinds == kind)).sum(1)
        return np.broadcast_to(found / self.queries.sum(), (self.heads, KINDS))

    def outside(self, head: int) -> np.ndarray:
        """(N,): of each query block, the share of its weight that lies outside the pattern: the missed mass."""
        cells, share, kinds = self.masses(head)
        return np.bincount(cells // self.n_blocks, share * (kinds == NONE), self.n_blocks)

    def tile(self, head: int, i: int, j: int) -> np.ndarray | None:
        """float32 (b, b): what each token of block i gives to each of block j; None where it does not read it."""
        if i not in self._found:
            return None
        keys, values = self._row(head, i)
        at = (keys == j).nonzero()
        if not len(at):
            return None
        tile = values[:, int(at[0])].float().cpu() * self.real[i].unsqueeze(-1)  # (b, b)
        return tile.numpy() if self.kinds(head)[i, j] != NONE or bool(tile.any()) else None

    def tops(self, head: int, place: int, most: int = 6) -> list[tuple[int, float]]:
        """The keys to which the token at this place gives most: (place, weight), the largest first."""
        i, r = divmod(place, self.block_size)
        if i not in self._found or not bool(self.real[i, r]):
            return []
        keys, values = self._row(head, i)
        there = keys < self.n_blocks
        weights = values[r][there].float()  # (K, b)
        best = weights.flatten().topk(min(most, weights.numel()))
        places = keys[there].unsqueeze(-1) * self.block_size + torch.arange(self.block_size, device=keys.device)
        found = zip(places.flatten()[best.indices].tolist(), best.values.tolist(), strict=True)
        return [(key, weight) for key, weight in found if weight > 0]

    def missed_by(self, head: int, place: int) -> float:
        """The share of the weight of the token at this place that lies outside the pattern."""
        i, r = divmod(place, self.block_size)
        keys, values = self._row(head, i)
        given = values[r].float().sum(-1).cpu().numpy()  # (K,)
        return float(given[self.kinds(head)[i][keys.cpu().numpy()] == NONE].sum())

    def _row(self, head: int, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The key blocks of a query block, (K,) with N where it reads fewer, and its weights (b, K, b)."""
        part, at = self._found[i]
        return part.keys[head if len(part.keys) > 1 else 0, at], part.values[0, head, at]


class Lookup:
    """The maps of several models for one text, computed when they are asked for and kept while there is room."""

    def __init__(self, models: Mapping[str, BigBirdModel], text: Text) -> None:
        self.models, self.text = models, text
        self._kept: dict[tuple[str, int, bool], Maps] = {}
        self._texts: dict[tuple[int, int, int], list[str]] = {}

    def maps(self, name: str, layer: int, full: bool = False) -> Maps:
        """Of a layer of a model. full: with full attention in all layers, and the same weights of the model.

        Raises ValueError where that would be too much to compute.
        """
        key = (name, layer, full)
        if key not in self._kept:
            encoder = self.models[name]
            count = self._check(encoder, layer, full)
            layers = range(len(encoder.layers)) if count * len(encoder.layers) <= _AT_ONCE else [layer]
            n_blocks = blocks_of(encoder, self.text)[1]
            runs = fully(encoder, n_blocks) if full else encoder
            with evaluating(runs):
                found = runs.attention_maps(**moved(self.text.given, runs), layers=layers)
            for one, weights in found.items():
                real = real_places(self.text, weights, encoder.config.extra_global_tokens)
                self._kept[name, one, full] = Maps(weights, pattern_of(encoder, self.text, one), real)
        maps = self._kept[key] = self._kept.pop(key)  # the latest stands last
        while len(self._kept) > 2 and sum(kept.nbytes for kept in self._kept.values()) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return maps

    def texts(self, extra: int, room: int, places: int) -> list[str]:
        """What stands at each place, "" for padding: extra global tokens in their room, then the text."""
        if (extra, room, places) not in self._texts:
            first = [f"global {k}" for k in range(extra)] + [""] * (room - extra)
            both = zip(self.text.tokens, self.text.real.tolist(), strict=True)
            own = [token if real else "" for token, real in both]
            self._texts[extra, room, places] = first + own + [""] * (places - room - len(own))
        return self._texts[extra, room, places]

    def full_count(self, name: str, layer: int) -> int:
        """How many weights full attention has in a layer; 0 where the pattern is full anyway."""
        p = pattern_of(self.models[name], self.text, layer)
        return 0 if everything(p) else self._count(self.models[name], BlockPattern.full(p.n_blocks))

    def _count(self, encoder: BigBirdModel, p: BlockPattern) -> int:
        b, heads = encoder.config.block_size, encoder.config.num_attention_heads
        return int(p.keys_per_query(b).sum()) * b * heads // p.heads

    def _check(self, encoder: BigBirdModel, layer: int, full: bool) -> int:
        p = pattern_of(encoder, self.text, layer)
        if p.n_blocks > LARGEST:
            raise ValueError(f"{p.n_blocks:,} blocks are too many; the viewer shows up to {LARGEST:,}")
        if full and everything(p):
            raise ValueError("this layer reads everything: full attention is the same")
        count = self._count(encoder, BlockPattern.full(p.n_blocks) if full else p)
        most = MOST_FULL if full else MOST
        if count > most:
            kind = "full attention" if full or everything(p) else "this pattern"
            config, way = encoder.config, ""
            if kind == "full attention":
                blocks = math.isqrt(most // config.num_attention_heads) // config.block_size - config.extra_blocks
                way = f", which is enough for {blocks * config.block_size:,} tokens"
            raise ValueError(
                f"{kind} has {count:,} weights in a layer of this text; up to {most:,} are computed here{way}"
            )
        return count


def encoder_of(model: Any) -> BigBirdModel:
    """The encoder itself, or that inside a model. Raises TypeError where there is none."""
    found = model if isinstance(model, BigBirdModel) else getattr(model, "encoder", None)
    if not isinstance(found, BigBirdModel):
        raise TypeError(
            f"a BigBird model is needed here (an encoder, a head, or a model with an .encoder), not "
            f"{type(model).__name__}"
        )
    return found


def blocks_of(encoder: BigBirdModel, text: Text) -> tuple[int, int]:
    """The blocks of the text up to its last real token, and those of the padded input; without extra global ones."""
    b = encoder.config.block_size
    own = encoder.pattern if isinstance(encoder.pattern, Sequence) else [encoder.pattern]
    fixed = [p.n_blocks for p in own if isinstance(p, BlockPattern)]
    return -(-text.reach // b), max([-(-len(text) // b), *fixed])


def pattern_of(encoder: BigBirdModel, text: Text, layer: int) -> BlockPattern:
    """The pattern of a layer for this text, with the blocks of extra global tokens before it."""
    real, n_blocks = blocks_of(encoder, text)
    return encoder.patterns(layer, [real], n_blocks)


def everything(p: BlockPattern) -> bool:
    """Whether all that is real is read anyway."""
    return p.unpadded().density() == 1


def real_places(text: Text, weights: BlockWeights, extra: int) -> torch.Tensor:
    """(N, b) bool: the tokens of the text that may be read, and the extra global ones before them."""
    n, N = weights.shape[2], weights.n_blocks
    b = n // N
    room = -(-extra // b) * b
    real = torch.zeros(n, dtype=torch.bool)
    real[:extra] = True
    real[room : room + len(text)] = text.real
    return real.view(N, b)


def fully(encoder: BigBirdModel, n_blocks: int) -> BigBirdModel:
    """The same weights, not copied, with full attention in every layer; see attention_type="original_full"."""
    full, pooler = BlockPattern.full(n_blocks), encoder.pooler is not None
    with torch.device("meta"):
        twin = BigBirdModel(encoder.config, pattern=full, attention_fn=_oracle, pooler=pooler)
    twin.load_state_dict(encoder.state_dict(), assign=True)
    return twin


def _oracle(*given: Any, return_weights: bool = False, **more: Any) -> Any:
    """The plain n x n, which copies no keys, where the weights are asked for."""
    return attention(*given, backend="dense" if return_weights else "auto", return_weights=return_weights, **more)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every part is in the mode it was in."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def moved(given: Mapping[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The input on the model's device."""
    device = next(model.parameters()).device
    return {name: x.to(device) for name, x in given.items()}
