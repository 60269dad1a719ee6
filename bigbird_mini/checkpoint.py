"""Checkpoints: a folder with config.json and model.safetensors, as Hugging Face lays them out.

This room moves dictionaries between memory and folders, or the hub, and translates parameter names. It knows no model
class. Weights are read from safetensors only, never from pickles, which can run a stranger's code when they are opened.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import torch

Weights = dict[str, torch.Tensor]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_HUB_FILES = [CONFIG, WEIGHTS, INDEX, "model-?????-of-?????.safetensors"]
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")

# ---------------------------------------------------------------- names

_ENCODER = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.#.query": "encoder.layer.#.attention.self.query",
    "layers.#.key": "encoder.layer.#.attention.self.key",
    "layers.#.value": "encoder.layer.#.attention.self.value",
    "layers.#.out": "encoder.layer.#.attention.output.dense",
    "layers.#.attention_norm": "encoder.layer.#.attention.output.LayerNorm",
    "layers.#.up": "encoder.layer.#.intermediate.dense",
    "layers.#.down": "encoder.layer.#.output.dense",
    "layers.#.output_norm": "encoder.layer.#.output.LayerNorm",
}
_HEADS = {
    "transform": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
}
_OURS, _THEIRS = "encoder.", "bert."  # what stands before the encoder's names in a model with a head
_OLD_PARTS = {"gamma": "weight", "beta": "bias"}
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def to_hugging_face(name: str) -> str:
    """Hugging Face's name for a parameter of ours: 'bert.encoder.layer.0.output.dense.bias' for
    'encoder.layers.0.down.bias'.

    A name that is not in the table stays as it is (but for the prefix), so that parts of ours that they lack keep it.
    """
    return _translated(name, _ENCODER, _HEADS, _OURS, _THEIRS)


def from_hugging_face(name: str) -> str:
    """Our name for a parameter of Hugging Face's; the way back of :func:`to_hugging_face`."""
    encoder, heads = ({theirs: ours for ours, theirs in table.items()} for table in (_ENCODER, _HEADS))
    return _translated(name, encoder, heads, _THEIRS, _OURS)


def _translated(name: str, encoder: dict[str, str], heads: dict[str, str], before: str, after: str) -> str:
    whole = _looked_up(name, encoder) or _looked_up(name, heads)  # of an encoder alone, or of a head
    if whole is None and name.startswith(before):
        inside = name.removeprefix(before)
        return after + (_looked_up(inside, encoder) or inside)
    return whole or name


def _looked_up(name: str, table: dict[str, str]) -> str | None:
    number = re.search(r"(?<=\.)\d+(?=\.)", name)
    plain = name if number is None else name[: number.start()] + "#" + name[number.end() :]
    stem, _, part = plain.rpartition(".")
    found = table.get(plain) or (f"{table[stem]}.{part}" if stem in table else None)
    return found.replace("#", number[0]) if found and number else found


# ---------------------------------------------------------------- reading


def read(folder_or_hub_name: str | Path) -> tuple[dict[str, Any], Weights]:
    """The config and the weights of a checkpoint: (config.json as a dict, name -> CPU tensor, Hugging Face's names).

    folder_or_hub_name: a folder with config.json and model.safetensors (or its shards, named in
    model.safetensors.index.json), one of these files, or a name 'owner/name' on the hub, which is downloaded once and
    kept by ``huggingface_hub`` (extra ``hf``). A folder of that name comes first.

    Names of old files are brought up to date (gamma and beta of norms), buffers and copies of tied weights left out.

    Raises FileNotFoundError for what is not there, ValueError for what is damaged (both name the file), ImportError
    and OSError where the hub cannot be asked. Weights may be mapped from the file: they are read when they are used.
    """
    folder, file = _located(folder_or_hub_name)
    config = _json_object(folder / CONFIG)
    if file is None:
        file = folder / WEIGHTS
    if file.is_file():
        return config, _up_to_date(_tensors(file))
    if (folder / INDEX).is_file():
        return config, _up_to_date(_sharded(folder))
    raise FileNotFoundError(
        f"{folder} has no {WEIGHTS}. Only safetensors are read, never pickles (pytorch_model.bin); if you trust a "
        "pickle's author, transformers converts it: AutoModel.from_pretrained(folder).save_pretrained(new_folder)"
    )


def _located(given: str | Path) -> tuple[Path, Path | None]:
    """The folder of a checkpoint, and its weights where they were named themselves."""
    path = Path(given).expanduser()
    if path.is_dir():
        return path, None
    if path.is_file():
        if path.name in (CONFIG, INDEX):
            return path.parent, None
        if path.suffix == ".safetensors":
            return path.parent, path
        raise ValueError(f"{path} is no checkpoint: give its folder, or a file {WEIGHTS} (never a pickle)")
    if isinstance(given, str) and _HUB_NAME.fullmatch(given):
        return _from_hub(given), None
    raise FileNotFoundError(
        f"there is no folder {str(given)!r} (looked from {Path.cwd()}); a name on the hub has the form owner/name, "
        "such as 'google/bigbird-roberta-base'"
    )


def _from_hub(name: str) -> Path:
    here = f"there is no folder {name!r} here (looked from {Path.cwd()})"
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{here}; to look for it on the hub: pip install "bigbird-mini[hf]", or give the folder of a download'
        ) from error
    try:
        return Path(hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except errors.GatedRepoError as error:
        raise OSError(
            f"{name!r} on the hub asks for consent first: accept its terms there, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{here}, and the hub shows no model of this name; check the spelling (for a private one: `hf auth login`)"
        ) from error
    except Exception as error:  # of a dozen kinds, by way of requests, httpx, the disk ...
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise OSError(
            f"{here}, and it could not be had from the hub ({reason}); go online, or copy its {CONFIG} and {WEIGHTS} "
            "into a folder and give that"
        ) from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path.parent} has no {path.name}; a checkpoint is a folder with one") from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is damaged, it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(found).__name__}, not an object of names and values")
    return found


def _tensors(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file ({error}); copy or download it again") from error


def _sharded(folder: Path) -> Weights:
    """The tensors of all shards. The index says which file holds what, and it must agree with the files."""
    places = _json_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{folder / INDEX} is damaged: its weight_map must name a file for each tensor")
    weights: Weights = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise ValueError(f"{folder / INDEX} names {file!r}, which is not a file of its own folder")
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}, which its index names; copy or download it again")
        weights |= _tensors(folder / file)
    missing = sorted(set(places) - set(weights))
    if missing:
        raise ValueError(f"{folder / INDEX} names tensors that its files lack: {', '.join(missing[:5])}")
    return weights


def _up_to_date(weights: Weights) -> Weights:
    """Under today's names, without buffers, and tied weights once."""
    found = {}
    for name, tensor in weights.items():
        stem, _, part = name.rpartition(".")
        if part not in ("position_ids", "token_type_ids"):
            found[f"{stem}.{_OLD_PARTS[part]}" if part in _OLD_PARTS else name] = tensor
    for copy, own in _TIED.items():
        if copy in found and own not in found:  # whoever wrote the file kept the other name of the two
            found[own] = found.pop(copy)
        elif copy in found and torch.equal(found[copy], found[own]):
            del found[copy]
    return found


# ---------------------------------------------------------------- writing


def write(folder: str | Path, config: dict[str, Any], weights: Weights) -> None:
    """Write config.json and model.safetensors into a folder, which is made where it is missing.

    Both are written beside the old ones and take their places when they are complete on the disk: a full disk or a
    power cut leaves what was there. Tensors may lie on any device, with any strides, and share memory; each is stored
    by itself.

    Raises TypeError and ValueError for what cannot be stored and OSError where the folder cannot be written.
    """
    folder = Path(folder).expanduser()
    text, tensors = _as_json(config), _storable(weights)
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    mark = secrets.token_hex(4)
    beside = {name: folder / f".{name}.{mark}" for name in (WEIGHTS, CONFIG)}
    now = "what was there is as it was"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, beside[WEIGHTS], metadata={"format": "pt"})  # transformers asks for the format
        beside[CONFIG].write_text(text, encoding="utf-8")
        for file in beside.values():
            with file.open("r+b") as complete:
                os.fsync(complete.fileno())
        for name, file in beside.items():
            file.replace(folder / name)
            now = f"{name} is the new one already"
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{folder} could not be written ({getattr(error, 'strerror', None) or error}); {now}. Choose a folder that "
            "you may write to, on a disk with room, and close programs that hold its files open"
        ) from error
    finally:
        for file in beside.values():
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def _as_json(config: dict[str, Any]) -> str:
    if not isinstance(config, dict):
        raise TypeError(f"a config must be a dict, not {type(config).__name__}")
    for key, value in config.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"config[{key!r}]={value!r} cannot be stored as JSON: {error}") from error
    return json.dumps(config, indent=2) + "\n"


def _storable(weights: Weights) -> Weights:
    """Dense CPU tensors, contiguous, no two of which share memory."""
    found, seen = {}, set()
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor) or not isinstance(name, str):
            raise TypeError(f"weights must be tensors by name, not {name!r}: {type(tensor).__name__}")
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "on the device meta, without values" if tensor.is_meta else f"{tensor.layout}, not dense"
            raise ValueError(f"the tensor {name!r} is {kind}; it cannot be stored")
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return found
