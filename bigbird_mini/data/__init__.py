"""Real data that is always there, offline: a genome in the package, and the text of the reader's own Python."""

from .genome import GENOME_LETTERS, genome
from .stdlib import Document, stdlib_text
from .tokens import ByteTokenizer, DNATokenizer

__all__ = ["GENOME_LETTERS", "ByteTokenizer", "DNATokenizer", "Document", "genome", "stdlib_text"]
