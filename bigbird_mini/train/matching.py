"""What a checkpoint holds of a model, an optimiser and settings, what is different now, and the way back."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import torch
from torch import nn

from .saving import Checkpoint, Tensors
from .settings import TrainSettings


def config_of(model: nn.Module) -> dict[str, Any]:
    """The settings of the model, as JSON gives them back; empty where it has none that are a dataclass."""
    config = getattr(model, "config", None)
    return json.loads(json.dumps(asdict(config), default=str)) if is_dataclass(config) else {}


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """What the optimiser remembers, as 'exp_avg/layers.0.weight': by parameter name, not by place in a list."""
    names = {p: name for name, p in model.named_parameters()}
    return {f"{key}/{names[p]}": value for p, found in optimizer.state.items() for key, value in found.items()}


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, stored: Tensors) -> None:
    """The way back. Takes copies: the tensors may be mapped from a file, and files may go."""
    found: dict[str, Tensors] = {}
    for key, tensor in stored.items():
        key, _, name = key.partition("/")
        found.setdefault(name, {})[key] = tensor.clone()
    names = {p: name for name, p in model.named_parameters()}
    places = [names[p] for group in optimizer.param_groups for p in group["params"]]
    state = {place: found[name] for place, name in enumerate(places) if name in found}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def misfits(model: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Each tensor that the checkpoint and the model do not share, in words."""

    def kind(tensor: torch.Tensor) -> str:
        return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"

    here, there = model.state_dict(), checkpoint.model
    both = [name for name in here if name in there]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    moved = sorted({key.partition("/")[2] for key in checkpoint.optimizer} & set(here))
    return [
        *(f"it has {name}, and the model does not" for name in sorted(there) if name not in here),
        *(f"the model has {name}, and it does not" for name in here if name not in there),
        *(
            f"{name} is {kind(there[name])} there and {kind(here[name])} here"
            for name in both
            if kind(here[name]) != kind(there[name])
        ),
        *(f"{name} was trained there and is frozen here" for name in moved if name not in trained),
    ]


def changes(model: nn.Module, settings: TrainSettings, checkpoint: Checkpoint) -> list[str]:
    """'clip=1.0, here 0.5' for each setting of training or model that decides what is computed and is another now."""
    config, stored = config_of(model), checkpoint.state["config"]
    return settings.differences(checkpoint.state["settings"]) + [
        f"config.{name}={stored.get(name)!r}, here {config.get(name)!r}"
        for name in sorted(config | stored)
        if stored.get(name) != config.get(name)
    ]
