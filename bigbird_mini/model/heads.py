"""The heads: an encoder, and what makes answers of its vectors; as in Hugging Face's classes of the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..attention import BlockWeights
from ..attention.kernels import wide
from .config import BigBirdConfig
from .encoder import BigBirdModel
from .layers import ACTIVATIONS
from .losses import NO_LABEL, checked_labels, cross_entropy, word_loss
from .outputs import BigBirdOutput, MaskedLMOutput, QuestionAnsweringOutput
from .pretrained import Pattern, Pretrained

Tensor = torch.Tensor


class Head(Pretrained):
    """An encoder with something on top, which the classes below make. Arguments as for :class:`BigBirdModel`."""

    def __init__(
        self,
        config: BigBirdConfig,
        pattern: Pattern | Sequence[Pattern] | None = None,
        attention_fn: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = BigBirdModel(config, pattern, attention_fn)
        self._make(config)
        for name, part in self.named_children():
            if name != "encoder":
                part.apply(self.encoder._start)

    def _make(self, config: BigBirdConfig) -> None:
        raise NotImplementedError

    def prepare(self, n: int, lengths: Iterable[int] = ()) -> None:
        """See :meth:`BigBirdModel.prepare`."""
        self.encoder.prepare(n, lengths)

    def attention_maps(self, *inputs: Any, **more: Any) -> dict[int, BlockWeights]:
        """See :meth:`BigBirdModel.attention_maps`."""
        return self.encoder.attention_maps(*inputs, **more)


class BigBirdForMaskedLM(Head):
    """Which word stands here? The decoder is the word embedding again (tied).

    Arguments as for :class:`BigBirdModel`.
    """

    def _make(self, config: BigBirdConfig) -> None:
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> MaskedLMOutput:
        """As the encoder; the logits (B, n, vocabulary) are made when they are asked for.

        labels: (B, n) the true ids, -100 where none is asked for; the loss is their mean cross-entropy in nats, and 0
        where no position has a label. For the loss, the scores are made a few labelled positions at a time.
        """
        out = self.encoder(input_ids, attention_mask, token_type_ids, inputs_embeds)
        x = out.last_hidden_state  # (B, n, hidden)
        ready = self.norm(self.act(self.transform(x)))
        if torch.is_autocast_enabled(x.device.type):
            ready = ready.to(torch.get_autocast_dtype(x.device.type))
        words, loss = self.encoder.embeddings.word.weight, None
        if labels is not None:
            labels = checked_labels(labels, x.shape[:2], self.config.vocab_size, "the vocabulary")
            loss = word_loss(ready.flatten(0, 1), words, self.bias, labels.flatten())
        return MaskedLMOutput(x, ready, words, self.bias, torch.is_grad_enabled(), loss, out.global_hidden_state)


class TextClassifier(nn.Module):
    """From the first token's vector: dropout, a layer, dropout, the labels. Names as in Hugging Face's files."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.dropout, self.act = nn.Dropout(config.head_dropout), ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        first = self.dropout(x.select(1, 0))  # (B, hidden)
        return self.out_proj(self.dropout(self.act(self.dense(first))))  # (B, num_labels)


class BigBirdForSequenceClassification(Head):
    """Which of num_labels does the whole text have? Read from its first token.

    Arguments as for :class:`BigBirdModel`.
    """

    def _make(self, config: BigBirdConfig) -> None:
        self.classifier = TextClassifier(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> BigBirdOutput:
        """As the encoder, with logits (B, num_labels).

        labels: (B,) whole numbers, for the mean cross-entropy in nats (-100: none); with num_labels=1 numbers of any
        kind, for the mean squared error; or floating point (B, num_labels), each label by itself yes (1) or no (0),
        for the mean binary cross-entropy.
        """
        out = self.encoder(input_ids, attention_mask, token_type_ids, inputs_embeds)
        out.logits = self.classifier(out.last_hidden_state)
        if labels is not None:
            out.loss = self._loss(out.logits, labels)
        return out

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        B, C = logits.shape
        several = C > 1 and isinstance(labels, Tensor) and labels.is_floating_point()
        if C > 1 and not several:
            return cross_entropy(logits, checked_labels(labels, (B,), C, f"num_labels={C}"))
        if not isinstance(labels, Tensor) or labels.shape not in ([(B, C)] if several else [(B,), (B, 1)]):
            kind = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"labels must be a tensor (B,) of numbers, or (B, num_labels) = {(B, C)}; this is {kind}")
        logits, labels = logits.to(wide(logits)), labels.view(B, C).to(wide(logits))
        return F.binary_cross_entropy_with_logits(logits, labels) if several else F.mse_loss(logits, labels)


class BigBirdForTokenClassification(Head):
    """Which of num_labels does each token have?

    Arguments as for :class:`BigBirdModel`.
    """

    def _make(self, config: BigBirdConfig) -> None:
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> BigBirdOutput:
        """As the encoder, with logits (B, n, num_labels). labels: (B, n), -100 where none is asked for; the loss is
        their mean cross-entropy in nats, and 0 where no token has a label."""
        out = self.encoder(input_ids, attention_mask, token_type_ids, inputs_embeds)
        out.logits = self.classifier(self.dropout(out.last_hidden_state))
        if labels is not None:
            (B, n, C) = out.logits.shape
            labels = checked_labels(labels, (B, n), C, f"num_labels={C}")
            out.loss = cross_entropy(out.logits.flatten(0, 1), labels.flatten())
        return out


class SpanClassifier(nn.Module):
    """One more feed-forward with residual and LayerNorm, then two scores a token. Names as in Hugging Face's files."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, inner)})
        norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, hidden), "LayerNorm": norm})
        self.qa_outputs = nn.Linear(hidden, 2)
        self.dropout, self.act = nn.Dropout(config.hidden_dropout_prob), ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.intermediate["dense"](self.dropout(x)))
        x = self.output["LayerNorm"](x + self.dropout(self.output["dense"](inner)))  # (B, n, hidden)
        return self.qa_outputs(x)  # (B, n, 2)


class BigBirdForQuestionAnswering(Head):
    """Where in the text does the answer start, and where does it end? The input is the question, then the text.

    Arguments as for :class:`BigBirdModel`.
    """

    def _make(self, config: BigBirdConfig) -> None:
        self.qa_classifier = SpanClassifier(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        question_lengths: Tensor | None = None,
    ) -> QuestionAnsweringOutput:
        """As the encoder, with start_logits and end_logits (B, n); tokens of the question, but for the first, have -1e6
        added to theirs, and so have masked ones (not so in Hugging Face's class: its loss depends on the padding).

        question_lengths: (B,) tokens of the question with what surrounds it; where not given, up to the first
        sep_token_id, included. token_type_ids: where not given, 0 for the question and 1 for the rest. Only with
        inputs_embeds and neither of the two is nothing known of the question, and nothing is done about it.

        start_positions, end_positions: (B,) of the answers, for the loss: the mean of both cross-entropies in nats.
        Positions outside the n tokens are left out (an answer that was cut off).
        """
        question = self._question(input_ids, inputs_embeds, question_lengths)  # (B, n) bool
        token_type_ids = _types(question, token_type_ids)
        out = self.encoder(input_ids, attention_mask, token_type_ids, inputs_embeds)
        x = out.last_hidden_state
        logits = self.qa_classifier(x)
        for barred in (question, None if attention_mask is None else attention_mask.logical_not()):
            if barred is not None:
                others = torch.arange(x.shape[1], device=x.device) > 0  # the first place may say: no answer
                logits = logits - 1e6 * (barred & others).unsqueeze(-1).to(wide(logits))
        out = QuestionAnsweringOutput(x, logits, None, out.global_hidden_state)
        if (start_positions is None) != (end_positions is None):
            raise ValueError("for a loss give start_positions and end_positions, both")
        if start_positions is not None:
            ends = (("start_positions", start_positions), ("end_positions", end_positions))
            out.loss = self._loss(logits, [_places(name, x, *logits.shape[:2]) for name, x in ends])
        return out

    def attention_maps(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        layers: Iterable[int] = (0,),
        *,
        question_lengths: Tensor | None = None,
    ) -> dict[int, BlockWeights]:
        """See :meth:`BigBirdModel.attention_maps`; question and text are told apart as in :meth:`forward`."""
        types = _types(self._question(input_ids, inputs_embeds, question_lengths), token_type_ids)
        return self.encoder.attention_maps(input_ids, attention_mask, types, inputs_embeds, layers)

    def _question(self, ids: Tensor | None, vectors: Tensor | None, lengths: Tensor | None) -> Tensor | None:
        """(B, n) True for the tokens of the question; None where nobody knows."""
        if lengths is None:
            if not isinstance(ids, Tensor) or ids.dim() != 2 or 0 in ids.shape:
                return None  # and the encoder says what is wrong
            lengths = (ids == self.config.sep_token_id).int().argmax(-1) + 1
        given = ids if vectors is None else vectors
        B, n = given.shape[:2]
        if not isinstance(lengths, Tensor) or lengths.shape not in ((B,), (B, 1)):
            kind = tuple(lengths.shape) if isinstance(lengths, Tensor) else type(lengths).__name__
            raise ValueError(f"question_lengths must be a tensor (B,) = {(B,)}, not {kind}")
        return torch.arange(n, device=given.device) < lengths.view(B, 1)

    @staticmethod
    def _loss(logits: Tensor, places: list[Tensor]) -> Tensor:
        true = torch.stack(places, -1)  # (B, 2)
        losses = F.cross_entropy(logits.to(wide(logits)), true, ignore_index=NO_LABEL, reduction="none")  # (B, 2)
        return (losses.sum(0) / (true != NO_LABEL).sum(0).clamp(min=1)).mean()


def _types(question: Tensor | None, given: Tensor | None) -> Tensor | None:
    """token_type_ids: those given, else 0 for the question and 1 for the rest; None where nobody knows."""
    return given if question is None or given is not None else question.logical_not().long()


def _places(name: str, x: Any, B: int, n: int) -> Tensor:
    """(B,) where each answer starts or ends, -100 where that is outside its n tokens."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.shape not in ((B,), (B, 1)):
        kind = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} must be a tensor of whole numbers (B,) = {(B,)}, not {kind}")
    x = x.view(B).long()
    return x.masked_fill((x < 0) | (x >= n), NO_LABEL)
