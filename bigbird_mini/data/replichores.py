"""Which strand leads? Labelled windows of the genome whose answer is weak evidence spread over thousands of bases.

A bacterial chromosome is a circle, copied in both directions from its origin to its terminus. On the half copied one
way, the strand as it is written is the leading one, on the other half it is the lagging one. Leading strands hold a
few per cent more G than C, so the sum of (G minus C) along the genome falls to its lowest point at the origin and rises
to its highest at the terminus. Those two points define the label here: call it *skew-derived*. It is not a measured
origin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .genome import GENOME_LETTERS, genome

TERMINUS, ORIGIN = 1_554_102, 3_711_079  # where that sum is highest and lowest
REPLICHORE_LENGTHS = (256, 1024, 4096, 16384)  # bases of a window
LONGEST = REPLICHORE_LENGTHS[-1]
BLOCK = 100_000  # bases; a whole block belongs to one group
TRAIN, VALIDATION, TEST = range(3)
_ENCODER = Path(__file__).with_name("genome_encoder")
_ENCODER_SHA256 = "80732af717cba61f3f05de4baac2fa2b4192160410f0b6161d2894482f6fc239"  # of its model.safetensors
_HELD_OUT = {VALIDATION: 3, TEST: 5}  # blocks from each half of the genome
_FOLDS = 3  # seeds in a row whose test blocks differ


@lru_cache(maxsize=1)
def genome_codes() -> np.ndarray:
    """The genome as numbers, uint8 (4646332,), read-only: A, C, G, T are 0, 1, 2, 3, so that 3 - x is x's partner."""
    table = np.zeros(256, np.uint8)
    table[np.frombuffer(b"ACGT", np.uint8)] = range(4)
    codes = table[np.frombuffer(genome().encode("ascii"), np.uint8)]
    codes.setflags(write=False)
    return codes


def reverse_complement(bases: torch.Tensor) -> torch.Tensor:
    """The same piece read from the other strand, (..., n) to (..., n): backwards, each base as its partner."""
    return 3 - bases.flip(-1)


def leads(centres: np.ndarray) -> np.ndarray:
    """int64, as centres: 1 where the written strand is the leading one, from the origin over the end to the terminus"""
    return ((centres <= TERMINUS) | (centres > ORIGIN)).astype(np.int64)


def replichore_windows(
    centres: np.ndarray | Iterable[int], length: int, flipped: np.ndarray | bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows around these centres and their labels, int64 (m, length) with A, C, G, T as 0 to 3, and int64 (m,).

    centres: the window covers bases centre - length / 2 to centre + length / 2 - 1, counted from 0.
    length: an even number of bases. flipped: for all or (m,) for each: read the other strand, which turns the label.

    Raises ValueError for an odd length, and for a window that would not lie in the genome or crosses the origin or the
    terminus, where it has no label.
    """
    centres = np.asarray(centres, np.int64).reshape(-1)
    if length < 2 or length % 2:
        raise ValueError(f"length={length} must be an even number of bases, at least 2")
    half = length // 2
    bad = ~_has_label(centres, half)
    if bad.any():
        raise ValueError(
            f"a window of {length} bases around {centres[bad][0]} has no label: it leaves the genome (0 to "
            f"{GENOME_LETTERS}) or crosses the terminus ({TERMINUS}) or the origin ({ORIGIN})"
        )
    flipped = np.broadcast_to(np.asarray(flipped, bool), centres.shape)
    bases = torch.from_numpy(genome_codes()[centres[:, None] + np.arange(-half, half)].astype(np.int64))  # (m, length)
    turn = torch.from_numpy(flipped.copy())
    bases = torch.where(turn[:, None], reverse_complement(bases), bases)
    return bases, torch.from_numpy(leads(centres) ^ flipped)


def _has_label(centres: np.ndarray, half: int) -> np.ndarray:
    first, behind = centres - half, centres + half
    fits = (first >= 0) & (behind <= GENOME_LETTERS)
    for turn in (TERMINUS, ORIGIN):
        fits &= (behind <= turn + 1) | (first > turn)
    return fits


@dataclass(frozen=True)
class ReplichoreSplit:
    """Centres of windows in three groups that share no base, at any length up to 16,384. int64 arrays, sorted.

    groups: (46,) the group of each block of 100,000 bases: 0 train, 1 validation, 2 test. The last 46,332 bases of the
        genome belong to none.
    """

    seed: int
    groups: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def replichore_split(seed: int = 0) -> ReplichoreSplit:
    """Which windows train, choose and test. The centres suit every length, so lengths are compared on the same places.

    Of each half of the genome, 3 blocks of 100,000 bases are for validation and 5 for testing; the rest trains.
    The validation blocks are the same for every seed, so that what is chosen on them was chosen on no test base of any
    seed. The test blocks of seeds 0, 1 and 2 differ, those of 3, 4 and 5 again, and so on.

    Training centres are all multiples of 16 whose window of 16,384 bases lies in training blocks; the other two groups
    have one every 2,000 bases, each window inside one block (so neighbours overlap at 16,384 bases, and the number of
    disjoint ones is 6 a block). No window crosses the origin or the terminus.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} must be 0 or more")
    groups = np.full(GENOME_LETTERS // BLOCK, TRAIN)
    starts = np.arange(len(groups)) * BLOCK
    inside = _has_label(starts + BLOCK // 2, BLOCK // 2)  # blocks that hold neither origin nor terminus
    for half in (0, 1):
        blocks = np.flatnonzero(inside & (leads(starts) == half)).tolist()
        shuffled = _shuffled(blocks, "validation")
        at = _HELD_OUT[VALIDATION]
        groups[shuffled[:at]] = VALIDATION
        rest = _shuffled(shuffled[at:], f"test {seed // _FOLDS}")
        fold, size = seed % _FOLDS, _HELD_OUT[TEST]
        groups[rest[fold * size : (fold + 1) * size]] = TEST
    groups.setflags(write=False)
    held_out = (_centres(groups, group, step=2000) for group in (VALIDATION, TEST))
    return ReplichoreSplit(seed, groups, _centres(groups, TRAIN, step=16), *held_out)


def _shuffled(blocks: list[int], word: str) -> list[int]:
    """In an order that follows from the word alone, on every machine and version."""
    return sorted(blocks, key=lambda block: hashlib.blake2b(f"{word} {block}".encode()).digest())


def _centres(groups: np.ndarray, group: int, step: int) -> np.ndarray:
    half = LONGEST // 2
    centres = np.arange(0, len(groups) * BLOCK, step)
    centres = centres[(centres >= half) & (centres <= len(groups) * BLOCK - half)]
    left, right = (centres - half) // BLOCK, (centres + half - 1) // BLOCK  # a window touches two blocks at most
    good = (groups[left] == group) & (groups[right] == group) & _has_label(centres, half)
    if group != TRAIN:
        good &= left == right
    centres = centres[good]
    centres.setflags(write=False)
    return centres


def genome_encoder() -> Path:
    """The folder of a small encoder that was trained to tell which strand leads from 16,384 bases (73,536 weights).

    ``StrandModel.load`` of bigbird_mini.jobs.genome_model reads all of it, ``BigBirdModel.from_pretrained`` the encoder
    alone. Its test windows are those of ``replichore_split(0)``; how it was made: data/PROVENANCE.md. Raises
    RuntimeError if the file of the package is damaged.
    """
    weights = _ENCODER / "model.safetensors"
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != _ENCODER_SHA256:
        raise RuntimeError(f"{weights.name} of {_ENCODER.name} is damaged or missing; install bigbird-mini again")
    return _ENCODER
