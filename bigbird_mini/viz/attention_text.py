"""The text that a model reads, as the attention viewer needs it: what goes in, and a name for every place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_SIGNS = {k: chr(0x2400 + k) for k in range(32)} | dict.fromkeys(range(127, 160), "�")  # control characters have none
_VISIBLE = str.maketrans(_SIGNS | {ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"})


@dataclass(frozen=True)
class Text:
    """One document. given: what attention_maps takes, by name, each (1, n) or (1, n, hidden). tokens: n texts.

    real: (n,) bool, True where the mask leaves a token to be read.
    """

    given: dict[str, torch.Tensor]
    tokens: list[str]
    real: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def reach(self) -> int:
        """Up to the last real token."""
        return int(self.real.nonzero().max()) + 1


def text_of(
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    inputs_embeds: Any = None,
    tokens: Any = None,
    document: int = 0,
) -> Text:
    """One document of a batch. Raises ValueError or TypeError for shapes that disagree, with the values.

    input_ids: (n,) or (B, n), or a list of numbers; inputs_embeds: (n, hidden) or (B, n, hidden) in their place.
    attention_mask, token_type_ids: shaped as the ids. tokens: a text for each of the n tokens (a list, or a string of n
    letters), a tokenizer, or a function from an id to its text; None shows the ids.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give input_ids or inputs_embeds, one of the two")
    name, more = ("input_ids", 0) if inputs_embeds is None else ("inputs_embeds", 1)
    main = torch.as_tensor(input_ids if inputs_embeds is None else inputs_embeds)
    if main.dim() not in (1 + more, 2 + more) or 0 in main.shape:
        shape = "(n,) or (B, n)" if inputs_embeds is None else "(n, hidden) or (B, n, hidden)"
        raise ValueError(f"{name} have shape {tuple(main.shape)}; they must be {shape}, with n > 0")
    batch = {name: main if main.dim() == 2 + more else main.unsqueeze(0)}
    B, n = batch[name].shape[:2]
    for other, x in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
        if x is not None:
            x = torch.as_tensor(x)
            x = x.unsqueeze(0) if x.dim() == 1 else x
            if x.shape != (B, n):
                raise ValueError(f"{other} has shape {tuple(x.shape)}; it must be (B, n) = {(B, n)}")
            batch[other] = x
    if not 0 <= document < B:
        raise ValueError(f"document={document} is out of range: the batch has documents 0 to {B - 1}")
    given = {key: x[document : document + 1] for key, x in batch.items()}
    real = given["attention_mask"][0].bool().cpu() if attention_mask is not None else torch.ones(n, dtype=torch.bool)
    if not bool(real.any()):
        raise ValueError(f"attention_mask hides every token of document {document}")
    ids = given["input_ids"][0].tolist() if inputs_embeds is None else None
    return Text(given, token_texts(tokens, ids, n), real)


def token_texts(tokens: Any, ids: list[int] | None, n: int) -> list[str]:
    """n texts in which spaces can be seen; see :func:`text_of` for what `tokens` may be."""
    if tokens is None:
        return [str(k) for k in (range(n) if ids is None else ids)]
    if isinstance(tokens, Sequence):
        if len(tokens) != n:
            raise ValueError(f"{len(tokens)} tokens for a text of {n}; give one for each")
        return [visible(str(token)) for token in tokens]
    if ids is None:
        raise ValueError("vectors have no ids to look up; give tokens as a list of texts, one for each")
    say = _sayer(tokens)
    said = {k: visible(str(say(k))) or f"[{k}]" for k in set(ids)}  # what says nothing is a special token
    return [said[k] for k in ids]


def visible(text: str) -> str:
    """The text with signs for its spaces, line ends and whatever else cannot be seen."""
    return text.translate(_VISIBLE)


def _sayer(tokens: Any) -> Callable[[int], str]:
    """From an id to its text: a function, or what tokenizers of several libraries call it."""
    for name in ("id_to_token", "convert_ids_to_tokens"):
        if hasattr(tokens, name):
            return getattr(tokens, name)
    if hasattr(tokens, "decode"):
        return lambda k: tokens.decode(torch.tensor([k]))
    if callable(tokens):
        return tokens
    raise TypeError(
        f"tokens must be a list of texts, a tokenizer or a function from an id to its text, not {type(tokens).__name__}"
    )
