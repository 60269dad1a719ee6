"""Weights, gradients and optimiser cut into pieces, one for each device: FSDP2 (torch.distributed.fsdp.fully_shard).

    torchrun --standalone --nproc-per-node=2 docs/fsdp2.py --steps 5 --save trained.safetensors

For a model that does not fit on one device beside its gradients and its optimiser. Where it does, Trainer under
torchrun is simpler, and it resumes. The micro-batches, their weights, the learning rate and the AdamW are the
Trainer's, so without dropout the losses are the same (tests/test_distributed.py). Without CUDA it runs on CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.train import TrainSettings, labelled

CONFIG = BigBirdConfig(
    vocab_size=300,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    max_position_embeddings=512,
    block_size=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def batches(number: int) -> dict[str, torch.Tensor]:
    """Two documents of 200 tokens, some of which are to be guessed."""
    rng = torch.Generator().manual_seed(number)
    ids = torch.randint(1, CONFIG.vocab_size, (2, 200), generator=rng)
    labels = ids.where(torch.rand(ids.shape, generator=rng) < 0.15, -100)
    return {"input_ids": ids, "labels": labels}


def sharded(model: BigBirdForMaskedLM, device: torch.device) -> nn.Module:
    """Each process keeps its piece of every layer; a layer is whole only while it computes."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in model.encoder.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)  # what is in no layer: embeddings and head


def adamw(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Weight decay for matrices only, as the Trainer has it."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.rate(1), settings.betas)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, settings: TrainSettings, number: int) -> dict[str, float]:
    """Step ``number``, from 1: each process one micro-batch, and a gradient as of all of them in one batch."""
    rank, world = dist.get_rank(), dist.get_world_size()
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in batches((number - 1) * world + rank).items()}
    total = torch.tensor(float(labelled(batch)), device=device)
    dist.all_reduce(total)
    loss = model(**batch).loss * (labelled(batch) / total)
    optimizer.zero_grad()
    (loss * world).backward()  # gradients are averaged over the processes, and a sum is wanted
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip).full_tensor()
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(number)
    optimizer.step()
    mean = loss.detach()
    dist.all_reduce(mean)
    return {"step": number, "loss": mean.item(), "learning_rate": settings.rate(number), "gradient_norm": norm.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--save", type=Path, help="a safetensors file for the trained weights, whole again")
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    settings = TrainSettings(
        arguments.steps, learning_rate=1e-3, clip=1.0, warmup=1, accumulation=dist.get_world_size()
    )
    torch.manual_seed(0)  # the same start everywhere: each process keeps its own piece of it
    model = sharded(BigBirdForMaskedLM(CONFIG).to(device), device)
    optimizer = adamw(model, settings)
    for number in range(1, settings.steps + 1):
        record = step(model.train(), optimizer, settings, number)
        if dist.get_rank() == 0:
            print(json.dumps(record), flush=True)
    if arguments.save:
        whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if dist.get_rank() == 0:  # the others got nothing
            save_file({name: tensor.contiguous() for name, tensor in whole.items()}, arguments.save)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
