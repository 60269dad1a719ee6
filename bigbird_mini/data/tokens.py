"""Text and DNA to token ids and back. Ids 0 to 3 are special; every letter after them has one of its own."""

from __future__ import annotations

import numpy as np
import torch

PAD, CLS, SEP, MASK = range(4)
_SPECIAL = 4


class ByteTokenizer:
    """One token a byte of UTF-8: no vocabulary file, and every text can be spelled."""

    vocab_size = 256 + _SPECIAL
    pad_id, cls_id, sep_id, mask_id = PAD, CLS, SEP, MASK

    def encode(self, text: str) -> torch.Tensor:
        """int64 (n,), one id for each byte of the text; no special tokens are added."""
        letters = np.frombuffer(text.encode("utf-8"), np.uint8)
        return torch.from_numpy(letters.astype(np.int64) + _SPECIAL)

    def decode(self, ids: torch.Tensor) -> str:
        """The text again; special tokens are left out, broken letters become a replacement sign."""
        ids = _checked(ids, self.vocab_size)
        return bytes((ids[ids >= _SPECIAL] - _SPECIAL).astype(np.uint8)).decode("utf-8", "replace")


class DNATokenizer:
    """One token a base: A, C, G, T, and N for an unknown one; small letters count as large ones."""

    letters = "ACGTN"
    vocab_size = len(letters) + _SPECIAL
    pad_id, cls_id, sep_id, mask_id = PAD, CLS, SEP, MASK

    def encode(self, text: str) -> torch.Tensor:
        """int64 (n,), one id a base; no special tokens are added. Raises ValueError for any other letter."""
        table = np.zeros(256, np.int64)
        for place, letter in enumerate(self.letters):
            table[[ord(letter), ord(letter.lower())]] = place + _SPECIAL
        ids = table[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]
        if not ids.all():
            at = int((ids == 0).argmax())
            raise ValueError(f"letter {text[at]!r} at position {at} is not DNA; allowed are {', '.join(self.letters)}")
        return torch.from_numpy(ids)

    def decode(self, ids: torch.Tensor) -> str:
        """The bases again; special tokens are left out."""
        ids = _checked(ids, self.vocab_size)
        return np.frombuffer(self.letters.encode(), np.uint8)[ids[ids >= _SPECIAL] - _SPECIAL].tobytes().decode()


def _checked(ids: torch.Tensor, vocab_size: int) -> np.ndarray:
    array = np.asarray(ids, np.int64).ravel()
    if array.size and not (array.min() >= 0 and array.max() < vocab_size):
        bad = array[(array < 0) | (array >= vocab_size)][0]
        raise ValueError(f"id {bad} is outside the vocabulary of {vocab_size}")
    return array
