"""Several processes, one for each device, that train one model together; started by torchrun.

torchrun tells each process its number and how many there are in the environment. Alone, there is nothing to do.
"""

from __future__ import annotations

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """Which of how many processes this is, and on which device it computes."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Does this process write files and draw progress? One does."""
        return self.rank == 0

    def share(self, model: nn.Module) -> nn.Module:
        """The model as the first process has it, its gradients averaged over the processes in each backward."""
        if self.world == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def quiet(self, shared: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        """A backward inside keeps its gradients to itself, if wanted: they travel once a step, not once a batch."""
        return shared.no_sync() if wanted and isinstance(shared, DistributedDataParallel) else nullcontext()

    def total(self, *values: float | torch.Tensor) -> list[float]:
        """The sums of these numbers over all processes, the same in each of them."""
        wide = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        sums = torch.stack([torch.as_tensor(value, device=self.device).detach().to(wide) for value in values])
        if self.world > 1:
            dist.all_reduce(sums)
        return sums.tolist()

    def agreed(self, value: int) -> int:
        """The first process's number, in every process."""
        if self.world == 1:
            return value
        number = torch.tensor(value, device=self.device)
        dist.broadcast(number, 0)
        return int(number)


def place_of_this_process() -> tuple[int, int, int]:
    """(rank, world, local rank) from torchrun's environment or a process group that is there already, else (0, 1, 0)"""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size(), local
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), local
    return 0, 1, local


def join(device: torch.device, rank: int, world: int) -> Workers:
    """Meet the other processes, once in the life of this one."""
    if world > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Workers(rank, world, device)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
