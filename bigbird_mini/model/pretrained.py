"""from_pretrained and save_pretrained: what a folder's config and weights mean to a model of ours, and back.

Folders are Hugging Face's (bigbird_mini/checkpoint.py reads and writes them): BigBird, BERT with full attention, and
our own where the config says what Hugging Face's BigBird cannot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from .. import checkpoint
from ..pattern import BlockPattern
from .config import BigBirdConfig

log = logging.getLogger("bigbird_mini")

Pattern = BlockPattern | Callable[[int], BlockPattern]

_SETTINGS = {field.name for field in fields(BigBirdConfig)} - {"gradient_checkpointing"}  # that one is a run's affair
_OF_BERT = {  # where a BERT folder says nothing
    "attention_type": "original_full",
    "hidden_act": "gelu",
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
_ONLY = {  # what else a config may say, and the one value with which it is an encoder of ours
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "position_embedding_type": "absolute",
}
_WRITTEN_ANEW = {"architectures", "model_type", "dtype", "torch_dtype", "num_labels", "pattern_checksum"}
_ENCODER_PARTS = {"embeddings", "layers", "final_norm", "pooler"}


class Pretrained(nn.Module):
    """A model that can be read from a folder and written to one."""

    config: BigBirdConfig
    kept: dict[str, Any]  # of config.json, what no model of ours reads but others may (names of labels, tokens)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_name: str | Path,
        *,
        pattern: Pattern | Sequence[Pattern] | None = None,
        attention_fn: Callable[..., torch.Tensor] | None = None,
        **config_overrides: Any,
    ) -> Self:
        """The model of a folder (config.json, model.safetensors or its shards) or of a name on the hub, in eval mode.

        Reads BigBird and BERT models of Hugging Face's transformers, without it, whatever head they have: the weights
        of a head that the folder lacks start fresh, and those of another head are left; one log line names both.

        pattern, attention_fn: as for the class. config_overrides: fields of BigBirdConfig to be changed, such as
        random_plan="hf_train" (a BigBird folder that has none is read as "google") or attention_type="original_full".

        Raises FileNotFoundError, ImportError, OSError: see :func:`bigbird_mini.checkpoint.read`; ValueError where the
        config is none of an encoder, where config and weights contradict each other, with the names and both shapes,
        and where the random blocks drawn here are not those that the folder was saved with.
        """
        given, weights = checkpoint.read(folder_or_hub_name)
        where = str(folder_or_hub_name)
        own = _config(given, config_overrides, where)
        config = replace(own, **config_overrides)
        weights = _ours(weights, inside="" if cls._is_encoder() else "encoder.")
        more = {"pooler": True} if cls._is_encoder() and "pooler.weight" in weights else {}
        with torch.device("meta"):
            agreed = cls(own, **more).state_dict()
        model = cls(config, pattern, attention_fn, **more).eval()
        _fill(model, weights, agreed, where)
        model.kept = {name: x for name, x in given.items() if name not in _SETTINGS | _WRITTEN_ANEW}
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, which from_pretrained reads, and Hugging Face's transformers too.

        The config holds the seed of the random blocks and a checksum of them. transformers draws its own: it gives our
        numbers with attention_type="original_full", or where random_plan is "hf_train" or "hf_eval" and it is in that
        mode. With pre-norm, other positions than learned ones, or extra global tokens it cannot read the folder.

        Raises OSError, with what was there still there, where the folder cannot be written.
        """
        config, encoder = self.config, self if self._is_encoder() else self.encoder
        if encoder.pattern is not None:
            log.warning("a pattern given to the model is not saved with it; give it to from_pretrained again")
        theirs = config.norm == "post" and config.positions == "learned" and not config.extra_global_tokens
        kept = dict(getattr(self, "kept", {}))
        if len(kept.get("id2label") or ()) != config.num_labels:
            names = [f"LABEL_{i}" for i in range(config.num_labels)]
            kept |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        settings = {name: x for name, x in asdict(config).items() if name in _SETTINGS - {"num_labels"}}
        about = {
            "model_type": "big_bird" if theirs else "bigbird_mini",
            "architectures": [type(self).__name__],
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."),
            "pattern_checksum": config.pattern_checksum(),
        }
        weights = {checkpoint.to_hugging_face(name): x for name, x in self.state_dict().items()}
        checkpoint.write(folder, kept | settings | about, weights)

    @classmethod
    def _is_encoder(cls) -> bool:
        """Whether this is the encoder itself, and not a head that has one."""
        return False


def _config(given: dict[str, Any], overrides: dict[str, Any], where: str) -> BigBirdConfig:
    """What the folder's own config means, without the overrides."""
    kind = given.get("model_type", "big_bird")
    if kind not in ("big_bird", "bert", "bigbird_mini"):
        raise ValueError(
            f"{where} has model_type={kind!r} in its config; 'big_bird', 'bert' and 'bigbird_mini' can be read"
        )
    for name, only in _ONLY.items():
        if given.get(name, only) not in (only, None):
            raise ValueError(f"{where} has {name}={given[name]!r} in its config; only {only!r} can be read")
    unknown = set(overrides) - {field.name for field in fields(BigBirdConfig)}
    if unknown:
        allowed = ", ".join(field.name for field in fields(BigBirdConfig))
        raise ValueError(f"BigBirdConfig has no {', '.join(sorted(unknown))}; it has {allowed}")
    settings = dict(_OF_BERT) if kind == "bert" else {}
    if given.get("id2label"):
        settings["num_labels"] = len(given["id2label"])
    settings |= {name: x for name, x in given.items() if name in _SETTINGS and x is not None}
    if kind == "big_bird" and "random_plan" not in settings:
        settings["random_plan"] = "google"
        full = {"attention_type": "original_full"}.items() <= (settings | overrides).items()
        if not full and "random_plan" not in overrides:
            log.warning(
                '%s does not say how its random blocks were drawn; it is read as random_plan="google". Others: '
                '"hf_train", "hf_eval" (Hugging Face), "uniform" (from the whole text)',
                where,
            )
    try:
        own = BigBirdConfig(**settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the config.json of {where} cannot be read: {error}") from error
    if given.get("pattern_checksum", own.pattern_checksum()) != own.pattern_checksum():
        raise ValueError(
            f"the random blocks of {where} are not those it was saved with (pattern_checksum {own.pattern_checksum()}, "
            f"saved {given['pattern_checksum']}): its config.json was edited, or this version draws others; delete "
            "pattern_checksum there to load it all the same"
        )
    return own


def _ours(weights: dict[str, torch.Tensor], inside: str) -> dict[str, torch.Tensor]:
    """Under our names, the encoder's with ``inside`` before them, whether the file had them in a head or alone."""
    found = {}
    for theirs, tensor in weights.items():
        name = checkpoint.from_hugging_face(theirs)
        plain = name.removeprefix("encoder.").replace("pooler.dense.", "pooler.")  # BERT has its pooler one deeper
        found[inside + plain if plain.partition(".")[0] in _ENCODER_PARTS else name] = tensor
    return found


def _fill(model: nn.Module, weights: dict[str, torch.Tensor], agreed: Iterable[str], where: str) -> None:
    """Copy the weights in. agreed: the names that the folder's own config asks for, without overrides.

    Of the encoder all these must be there, and no others; what an override added starts fresh, what it took is left.
    """
    state, agreed = model.state_dict(), set(agreed)
    fresh = [name for name in state if name not in weights]
    unused = [name for name in weights if name not in state]
    lacking = [name for name in fresh if name in agreed and _of_encoder(name)]
    if lacking:
        raise ValueError(f"{where} contradicts its config: it lacks the weights {_listed(lacking)}")
    beyond = [name for name in unused if name not in agreed and _of_encoder(name) and "pooler." not in name]
    if beyond:
        raise ValueError(f"{where} contradicts its config, which has no place for its weights {_listed(beyond)}")
    for name, own in state.items():
        if name in weights and weights[name].shape != own.shape:
            way = "; lengthen(model, n) makes a longer table" if "embeddings.position." in name else ""
            raise ValueError(
                f"{checkpoint.to_hugging_face(name)} is {tuple(weights[name].shape)} in {where}; by its config (and "
                f"overrides) it must be {tuple(own.shape)}{way}"
            )
        if name in weights and not weights[name].is_floating_point():
            raise ValueError(
                f"{checkpoint.to_hugging_face(name)} is {weights[name].dtype} in {where}; it must be floating point"
            )
    model.load_state_dict({name: x for name, x in weights.items() if name in state}, strict=False)
    if fresh or unused:
        parts = [f"start fresh, to be trained: {_listed(fresh, all_of=True)}"] if fresh else []
        parts += [f"are in the file and not used: {_listed(unused, all_of=True)}"] if unused else []
        level = logging.WARNING if fresh else logging.INFO
        log.log(level, "%s as %s: some weights %s", where, type(model).__name__, "; some ".join(parts))


def _of_encoder(name: str) -> bool:
    return name.removeprefix("encoder.").partition(".")[0] in _ENCODER_PARTS


def _listed(names: list[str], all_of: bool = False) -> str:
    """Under Hugging Face's names."""
    shown = names if all_of else names[:4]
    more = len(names) - len(shown)
    return ", ".join(map(checkpoint.to_hugging_face, shown)) + (f" and {more} more" if more else "")
