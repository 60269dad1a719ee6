"""The chromosome of Escherichia coli K-12 W3110 (accession NC_007779.1), shipped at two bits a base."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

GENOME_LETTERS = 4_646_332
_FILE = Path(__file__).with_name("ecoli_w3110.2bit")
_SHA256 = "b807c2018ef7a4b7a15720c847413fe3e97c67988970705465cb5bd89acfd26a"


@lru_cache(maxsize=1)
def genome() -> str:
    """The whole chromosome as one string of 4,646,332 letters A, C, G and T; where it comes from: data/PROVENANCE.md.

    The molecule is a circle; the string starts where the public record does. Raises RuntimeError if the file of the
    package is damaged.
    """
    packed = _FILE.read_bytes()
    if hashlib.sha256(packed).hexdigest() != _SHA256:
        raise RuntimeError(f"{_FILE.name} is damaged (its checksum differs); install bigbird-mini again")
    four = np.frombuffer(packed, np.uint8)  # four bases a byte, the first in the two highest bits
    codes = np.stack([four >> 6, four >> 4 & 3, four >> 2 & 3, four & 3], 1).ravel()
    return np.frombuffer(b"ACGT", np.uint8)[codes[:GENOME_LETTERS]].tobytes().decode("ascii")
