"""Real data that is always there, offline: a genome in the package, and the text of the reader's own Python."""

from .batches import BatchesByLength, batches_by_length
from .bpe import BPETokenizer, bpe_tokenizer
from .genome import GENOME_LETTERS, genome
from .imports import FRESH_NAMES, STATEMENT_NUMBERS, ImportDocument, import_documents, imported_names
from .minilm import minilm
from .replichores import (
    REPLICHORE_LENGTHS,
    ReplichoreSplit,
    genome_codes,
    genome_encoder,
    leads,
    replichore_split,
    replichore_windows,
    reverse_complement,
)
from .stdlib import Document, stdlib_text
from .tokens import ByteTokenizer, DNATokenizer

__all__ = [
    "FRESH_NAMES",
    "GENOME_LETTERS",
    "REPLICHORE_LENGTHS",
    "STATEMENT_NUMBERS",
    "BPETokenizer",
    "BatchesByLength",
    "ByteTokenizer",
    "DNATokenizer",
    "Document",
    "ImportDocument",
    "ReplichoreSplit",
    "batches_by_length",
    "bpe_tokenizer",
    "genome",
    "genome_codes",
    "genome_encoder",
    "import_documents",
    "imported_names",
    "leads",
    "minilm",
    "replichore_split",
    "replichore_windows",
    "reverse_complement",
    "stdlib_text",
]
