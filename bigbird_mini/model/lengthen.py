"""lengthen(): a pretrained encoder with full attention becomes a block-sparse one for longer texts.

Longformer's way (Beltagy et al. 2020, section 5), which BigBird takes too: every weight stays as it is; only the table
of positions, which ends where the old texts ended, has to be made longer, and the pattern has to be sparse.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any, TypeVar

import torch
from torch import nn

from .config import BigBirdConfig
from .encoder import BigBirdModel

Model = TypeVar("Model", bound=nn.Module)

WAYS = ("tiled", "interpolated", "fresh")


def lengthen(model: Model, n: int, how: str | None = None, **changes: Any) -> Model:
    """A model of the same class for texts of up to n tokens, with block-sparse attention and the same weights.

    Only the table of positions is new. All other parameters are the old ones themselves, not copies: training one model
    trains both. The old model stays as it was.

    Args:
        model: a BigBirdModel, or a head around one, also one that was read from a BERT folder.
        n: tokens, at least as many as the model takes today.
        how: where the n rows of the table come from. "tiled" (what None means): the old rows over and over, so that
            neighbours know each other as before, but for the seams. "interpolated": the old rows stretched, with those
            between them on straight lines. "fresh": all drawn anew, to be trained.
        changes: of the config, such as block_size=64, window_blocks=3, num_random_blocks=3, global_blocks=(0, -1),
            pattern_seed=0 or extra_global_tokens=8 (drawn anew); attention_type="original_full" keeps full attention.

    Raises ValueError, with the values, for a length or a setting that does not fit the weights.
    """
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, BigBirdModel):
        raise TypeError(f"lengthen takes a BigBirdModel or a head around one, not {type(model).__name__}")
    config = _changed(encoder.config, n, how, changes)
    more = {"pooler": True} if isinstance(model, BigBirdModel) and model.pooler is not None else {}
    with torch.device("meta"):  # the shapes alone: no weight is drawn only to be thrown away
        longer = type(model)(config, **more)
    _share(model, longer)
    new = getattr(longer, "encoder", longer)
    for layer, old in zip(new.layers, encoder.layers, strict=True):
        layer.attention_fn = old.attention_fn
    like = encoder.embeddings.word.weight
    if config.positions == "learned":
        rows = _positions(encoder.embeddings.position.weight, n, how or "tiled", config.initializer_range)
        new.embeddings.position.weight = nn.Parameter(rows, encoder.embeddings.position.weight.requires_grad)
    extra = getattr(new.embeddings, "extra_global", None)
    if extra is not None and extra.weight.is_meta:
        extra.weight = nn.Parameter(_drawn(like, config.extra_global_tokens, config.initializer_range))
    if hasattr(model, "kept"):  # what a folder's config said beyond ours goes into the next folder, too
        longer.kept = dict(model.kept)
    return longer.train(model.training)


def _changed(config: BigBirdConfig, n: int, how: str | None, changes: dict[str, Any]) -> BigBirdConfig:
    today = config.max_position_embeddings
    if not isinstance(n, int) or n < today:
        raise ValueError(f"n={n!r} must be a whole number, at least the {today} tokens that the model takes today")
    if how not in (None, *WAYS):
        raise ValueError(f"how={how!r} is not known; allowed: {', '.join(map(repr, WAYS))}")
    if how is not None and config.positions != "learned":
        raise ValueError(
            f"positions={config.positions!r} has no table to be {how}; leave `how` out, then only the length and the "
            "pattern change"
        )
    names = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in names or name == "max_position_embeddings":
            near = difflib.get_close_matches(name, names, 1, 0.4)
            hint = "n sets it" if name in names else f"did you mean {near[0]}?" if near else "see BigBirdConfig"
            raise ValueError(f"{name} is no setting to change here; {hint}")
    return dataclasses.replace(config, **({"attention_type": "block_sparse"} | changes), max_position_embeddings=n)


def _share(model: nn.Module, longer: nn.Module) -> None:
    """Give the new model the parameters of the old one, all but the table of positions."""
    state, needed = model.state_dict(keep_vars=True), longer.state_dict()
    new = [name for name in needed if name not in state and "embeddings.extra_global." not in name]
    lost = [name for name in state if name not in needed]
    state = {name: x for name, x in state.items() if "embeddings.position." not in name}
    other = [name for name, x in state.items() if name in needed and x.shape != needed[name].shape]
    for names, what in ((new, "a new"), (lost, "no"), (other, "another")):
        if names:
            raise ValueError(f"the changed config needs {what} {names[0]}; lengthen keeps the weights as they are")
    for name, x in state.items():  # load_state_dict(assign=True) would thaw frozen ones
        owner, _, own = name.rpartition(".")
        setattr(longer.get_submodule(owner), own, x)


@torch.no_grad()
def _positions(table: torch.Tensor, n: int, how: str, spread: float) -> torch.Tensor:
    """(n, hidden) out of (today, hidden)."""
    today = len(table)
    if how == "fresh":
        return _drawn(table, n, spread)
    if how == "tiled":
        return table.repeat(-(-n // today), 1).narrow(0, 0, n).clone()
    places = torch.linspace(0, today - 1, n, dtype=torch.float64)  # first and last row stay
    before = places.long()
    share = (places - before).unsqueeze(1).to(table)  # of the row after it
    before = before.to(table.device)
    after = (before + 1).clamp(max=today - 1)
    return torch.lerp(table.index_select(0, before), table.index_select(0, after), share)


@torch.no_grad()
def _drawn(like: torch.Tensor, rows: int, spread: float) -> torch.Tensor:
    return nn.init.normal_(like.new_empty(rows, like.shape[1]), std=spread)
