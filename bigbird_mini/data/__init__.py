"""Real data that is always there, offline: a genome in the package, and the text of the reader's own Python."""

from .genome import GENOME_LETTERS, genome
from .replichores import (
    REPLICHORE_LENGTHS,
    ReplichoreSplit,
    genome_codes,
    leads,
    replichore_split,
    replichore_windows,
    reverse_complement,
)
from .stdlib import Document, stdlib_text
from .tokens import ByteTokenizer, DNATokenizer

__all__ = [
    "GENOME_LETTERS",
    "REPLICHORE_LENGTHS",
    "ByteTokenizer",
    "DNATokenizer",
    "Document",
    "ReplichoreSplit",
    "genome",
    "genome_codes",
    "leads",
    "replichore_split",
    "replichore_windows",
    "reverse_complement",
    "stdlib_text",
]
