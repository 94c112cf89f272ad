"""Training in several processes at once, one a GPU: what torchrun starts, through torch's DistributedDataParallel.

Every process holds the same networks and draws its own share of each batch; gradients are averaged. The first one alone
writes files. Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from wsiseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train together, seen from one of them.

    rank : int     which one this is, from 0
    size : int     how many there are
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share_of(self, batch: int) -> int:
        """Crops of a batch that this process draws.

        Raises
        ------
        ConfigError
            If the batch cannot be shared evenly.
        """
        if batch % self.size:
            raise ConfigError(
                f"batch {batch} cannot be shared by {self.size} processes; make it a multiple of {self.size}"
            )
        return batch // self.size

    def wrap(self, network: nn.Module, device: str) -> nn.Module:
        """The network as training calls it: its gradients are the mean over the processes."""
        if self.size == 1:
            return network
        ids = [torch.device(device)] if torch.device(device).type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, value: float, device: str) -> float:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(shared, 0)
        return float(shared.item())


@contextmanager
def processes(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started, joined, and this one's device: a GPU each, where `device` is "cuda"."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(), device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), size), device
    finally:
        distributed.destroy_process_group()
