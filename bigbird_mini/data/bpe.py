"""A byte-pair vocabulary trained here, in seconds, on text that is at hand; no vocabulary file is shipped.

Sennrich et al. 2016, on bytes as in GPT-2: every text can be spelled, and frequent words are one token. Needs the
package ``tokenizers`` (extra ``lab``), which is imported when it is used.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import torch

from .stdlib import Document, stdlib_text
from .tokens import CLS, MASK, PAD, SEP, _checked

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 3, as in tokens.py
_RECIPE = "1"  # part of the cache's key: another recipe, another number
_LEAST = 256 + len(_SPECIAL)


class BPETokenizer:
    """Byte pairs, with the interface of ByteTokenizer; made by :func:`bpe_tokenizer`, or from the JSON of one.

    Attributes:
        vocab_size: the number of ids; 0 to 3 are special.
        byte_lengths: int64 (vocab_size,), how many bytes of UTF-8 each id stands for; 0 for the special ones.
    """

    pad_id, cls_id, sep_id, mask_id = PAD, CLS, SEP, MASK

    def __init__(self, definition: str) -> None:
        try:
            made = _tokenizers().Tokenizer.from_str(definition)
        except ImportError:
            raise
        except Exception as error:  # the package raises plain Exception
            raise ValueError(f"this is no definition of a byte-pair vocabulary: {error}") from error
        if [made.id_to_token(i) for i in range(len(_SPECIAL))] != list(_SPECIAL):
            raise ValueError(f"the first ids of this vocabulary are not {', '.join(_SPECIAL)}")
        made.encode_special_tokens = True  # "[MASK]" in a text is six letters, not the special token
        self._made = made
        self.vocab_size = made.get_vocab_size()
        # in a byte-level vocabulary every letter of a token stands for one byte
        lengths = [len(made.id_to_token(i)) for i in range(self.vocab_size)]
        self.byte_lengths = torch.tensor([0] * len(_SPECIAL) + lengths[len(_SPECIAL) :])

    def encode(self, text: str) -> torch.Tensor:
        """int64 (n,), the ids of the text; no special tokens are added."""
        return torch.tensor(self._made.encode(text).ids, dtype=torch.int64)

    def decode(self, ids: torch.Tensor) -> str:
        """The text again; special tokens are left out, broken letters become a replacement sign."""
        return self._made.decode(_checked(ids, self.vocab_size).tolist(), skip_special_tokens=True)


def bpe_tokenizer(vocab_size: int = 4096, documents: Iterable[Document] | None = None) -> BPETokenizer:
    """A vocabulary of this size for these documents; the standard library's text where None.

    The same text and size give the same ids on every machine. Trained once (about two seconds for the standard
    library) and kept as JSON in the cache folder: that of the platform, or the one that the environment variable
    BIGBIRD_MINI_CACHE names. A short text may yield fewer ids than were asked for. Raises ValueError for a size below
    260, ImportError without the package ``tokenizers``.
    """
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or vocab_size < _LEAST:
        raise ValueError(f"vocab_size={vocab_size!r} must be a whole number, at least {_LEAST}: 256 bytes and 4 more")
    texts = [document.text for document in (stdlib_text() if documents is None else documents)]
    key = hashlib.sha256(f"{_RECIPE} {vocab_size}".encode())
    for text in texts:
        key.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    file = _cache_folder() / f"bpe-{vocab_size}-{key.hexdigest()[:16]}.json"
    with suppress(OSError, ValueError):  # not there, not readable or damaged: train again
        return BPETokenizer(file.read_text("utf-8"))
    definition = _trained(texts, vocab_size)
    try:
        _write(file, definition)
    except OSError as error:
        warnings.warn(f"the vocabulary is not kept: {error}; set BIGBIRD_MINI_CACHE to a folder that can be written")
    return BPETokenizer(definition)


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            'a byte-pair vocabulary needs the package tokenizers: pip install "bigbird-mini[lab]"'
        ) from error
    return tokenizers


def _trained(texts: list[str], vocab_size: int) -> str:
    package = _tokenizers()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = package.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _one_thread():
        made.train_from_iterator(iter(texts), trainer)
    return made.to_str()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Counting in one thread, so that ties between pairs cannot depend on who came first."""
    names = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _write(file: Path, text: str) -> None:
    """All of the file or nothing, whoever else writes it at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as part:
            part.write(text)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _cache_folder() -> Path:
    named = os.environ.get("BIGBIRD_MINI_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bigbird_mini"
