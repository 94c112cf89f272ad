"""Training in two processes, as torchrun starts them, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsiseg.errors import ConfigError
from wsiseg.parallel import Processes

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import torch

from wsiseg.augment import Augmentation
from wsiseg.parallel import processes
from wsiseg.recipes import spn_ien
from wsiseg.samples import Sample
from wsiseg.stages import HeldOut, Schedule, TrainingImage
from wsiseg.train import train

torch.set_num_threads(1)
folder = Path(sys.argv[1])
schedule = Schedule(crops=8, batch=4, size=64)
settings = spn_ien.Settings(width=0.25, spn=schedule, ien=schedule)
image = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
sample = Sample("noise", image, 0.25, np.array([[32.5, 32.5], [96.5, 64.5]]))
with processes("cpu") as (together, device):
    networks = train(
        spn_ien.stages(settings), [TrainingImage(sample, {})], folder, augmentation=Augmentation(),
        device=device, processes=together, held_out=HeldOut([sample], every=1),
    )
    trainable = [w for n in networks.values() for w in n.parameters()]
    torch.save([w.detach() for w in trainable], folder / f"process{together.rank}.pt")
"""


def test_two_processes_end_with_the_same_weights_and_one_set_of_files(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / "run" / f"process{i}.pt", weights_only=True) for i in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert {path.name for path in (tmp_path / "run").glob("*.pt")} >= {"spn.pt", "ien.pt"}
    assert len((tmp_path / "run" / "spn.csv").read_text().splitlines()) == 3


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    assert Processes(0, 4).share_of(16) == 4
    with pytest.raises(ConfigError, match="batch 6 cannot be shared by 4 processes; make it a multiple of 4"):
        Processes(0, 4).share_of(6)
