"""Two processes under torchrun take the steps of one: the same losses, the same weights, one set of checkpoints."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from bigbird_mini import BigBirdForMaskedLM
from bigbird_mini.train import Trainer, TrainSettings, saving

HERE = Path(__file__).parent / "distributed"
DOCS = Path(__file__).parents[1] / "docs"
job = runpy.run_path(str(HERE / "job.py"))
pytestmark = [
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun was not tried on Windows"),
]
LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # the tests run offline


def torchrun(script, *arguments, processes=2):
    """The lines that the processes printed, as JSON. Each call meets at a free port of its own (--standalone)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": LOOPBACK[sys.platform]}
    ran = subprocess.run(
        [*command, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | quiet,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def apart(lines):
    """The records of the steps, and what each process took."""
    shares = sorted((line["rank"], line["taken"]) for line in lines if "taken" in line)
    return [line for line in lines if "step" in line], [taken for _, taken in shares]


def alone(steps=12):
    trainer = Trainer(job["model"](), job["batches"], job["settings"](steps))
    trainer.run(progress=False)
    return trainer


def same(one, other, within=1e-9):
    for name in ("step", "loss", "learning_rate", "gradient_norm"):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in other], abs=within), name


def test_two_processes_take_the_steps_of_one(tmp_path):
    """Dropout on, four micro-batches with unlike many labels, clipped; stopped half way, resumed by both."""
    folder = tmp_path / "run"
    rows, shares = apart(torchrun(HERE / "job.py", folder, "--until", 5))
    assert shares == [list(range(0, 20, 2)), list(range(1, 20, 2))]  # each its half of the work
    assert [path.name for path in saving.checkpoints(folder)] == ["step_00000005", "step_00000003"]
    more, shares = apart(torchrun(HERE / "job.py", folder))
    rows += more
    assert shares == [list(range(20, 48, 2)), list(range(21, 48, 2))]
    want = alone()
    same(rows, want.history)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000009", "step_00000012"]
    last = saving.read(folder / "step_00000012")
    for name, tensor in want.model.state_dict().items():
        assert torch.allclose(last.model[name], tensor, rtol=0, atol=1e-9), name
    assert last.state["micro_batch"] == 48
    # One process alone may go on with what two have begun.
    one = Trainer(job["model"](7), job["batches"], job["settings"](), folder=folder)
    assert one.resume() == 12 and [row["step"] for row in one.history] == list(range(1, 13))


def test_the_example_of_fsdp2_takes_the_steps_of_the_trainer(tmp_path):
    rows = torchrun(DOCS / "fsdp2.py", "--steps", 4, "--save", tmp_path / "trained.safetensors")
    example = runpy.run_path(str(DOCS / "fsdp2.py"))
    torch.manual_seed(0)
    given = TrainSettings(4, learning_rate=1e-3, clip=1.0, warmup=1, accumulation=2, device="cpu")
    want = Trainer(BigBirdForMaskedLM(example["CONFIG"]), example["batches"], given)
    want.run(progress=False)
    same(rows, want.history, within=1e-4)
    trained = load_file(tmp_path / "trained.safetensors")
    assert trained.keys() == want.model.state_dict().keys()
    for name, tensor in want.model.state_dict().items():
        assert torch.allclose(trained[name], tensor, rtol=0, atol=1e-4), name
    assert min(row["gradient_norm"] for row in rows) > 1.0  # clipped
