"""Resuming gives the same bits; Ctrl-C, a failure or kill -9 at any moment leaves a good checkpoint."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training import Toy, batches, encoder, names, same_bits, settings, trainer

from bigbird_mini.train import Trainer, saving
from bigbird_mini.train.matching import load_moments, moments

JOB = Path(__file__).parent / "distributed" / "job.py"

# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize(
    ("precision", "accumulation", "threads"),
    [("float32", 1, 1), ("float32", 3, 1), ("bfloat16", 1, 1), ("bfloat16", 3, 1), ("float32", 1, 2)],
)
def test_a_resumed_encoder_has_the_same_bits(tmp_path, precision, accumulation, threads):
    given = settings(steps=6, accumulation=accumulation, precision=precision, warmup=2, decay="cosine", clip=0.5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole, first, second = (Trainer(encoder(), batches, given, folder=tmp_path / name) for name in "abb")
        whole.run(progress=False)
        first.run(2, progress=False)
        assert second.resume() == 2 and second.steps_done == 2
        second.run(progress=False)
    finally:
        torch.set_num_threads(before)
    same_bits(whole, second)
    assert not torch.equal(first.model.transform.weight, second.model.transform.weight)


def test_every_cut_gives_the_same_bits_and_random_states_go_on(tmp_path):
    """Batches that draw from the global states of torch, NumPy and Python: not what is asked for, and yet exact."""

    def drawing(number):
        batch = batches(number)
        for draw in (torch.randint(1, 11, ()).item(), np.random.randint(1, 11), random.randint(1, 10)):
            batch["input_ids"].view(-1)[draw] = draw
        return batch

    def fresh(folder, seed=0):
        made = trainer(settings(steps=6, accumulation=2), data=drawing, folder=folder)
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        return made

    whole = fresh(tmp_path / "whole")
    whole.run(progress=False)
    for cut in range(1, 6):
        folder = tmp_path / str(cut)
        fresh(folder).run(cut, progress=False)
        again = fresh(folder, seed=9)
        assert again.resume() == cut
        again.run(progress=False)
        same_bits(whole, again)
    for _ in range(9):
        np.random.randn()  # one number in two waits in NumPy's state
    saved = np.random.get_state(), saving.random_states(torch.device("cpu"))
    want = np.random.randn(), torch.rand(3).tolist(), random.gauss(0, 1), random.gauss(0, 1)
    saving.set_random_states(json.loads(json.dumps(saved[1])), torch.device("cpu"))
    assert (np.random.randn(), torch.rand(3).tolist(), random.gauss(0, 1), random.gauss(0, 1)) == want


def test_what_is_resumed_does_not_lie_in_the_files():
    """They may be mapped into memory, and be thrown away or replaced."""
    one, other = trainer(), trainer()
    one.step()
    stored = {name: tensor.clone() for name, tensor in moments(one.model, one.optimizer).items()}
    load_moments(other.model, other.optimizer, stored)
    for tensor in stored.values():
        tensor.fill_(7)
    assert all(not torch.equal(t, stored[name]) for name, t in moments(other.model, other.optimizer).items())


def test_nothing_to_resume_is_a_start(tmp_path):
    made = trainer(folder=tmp_path / "run")
    assert made.resume() == 0 and not (tmp_path / "run").exists()
    assert made.step()["step"] == 1


def test_the_newest_are_kept_and_no_more(tmp_path):
    made = trainer(settings(steps=9, checkpoint_every=2, keep=3), folder=tmp_path / "run")
    made.run(5, progress=False)
    assert names(tmp_path / "run") == ["step_00000002", "step_00000004", "step_00000005"]
    made.run(progress=False)
    assert names(tmp_path / "run") == ["step_00000006", "step_00000008", "step_00000009"]
    files = names(tmp_path / "run" / "step_00000009")
    assert files == ["SHA256SUMS", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert made.save() == tmp_path / "run" / "step_00000009"  # it is there: nothing is written
    hand = trainer(settings(steps=3), folder=tmp_path / "hand")  # without checkpoint_every: after the last step
    for _ in range(3):
        assert not (tmp_path / "hand").exists() or names(tmp_path / "hand") == []
        hand.step()
    assert names(tmp_path / "hand") == ["step_00000003"]


def test_more_steps_may_be_added_and_settings_that_decide_nothing_may_change(tmp_path):
    trainer(settings(steps=4), folder=tmp_path / "run").run(progress=False)
    free = settings(steps=4, device="auto", checkpoint_every=1, keep=5, evaluate_every=3)
    assert trainer(free, folder=tmp_path / "run").resume() == 4
    more = trainer(settings(steps=6, learning_rate=0.5, accumulation=3), folder=tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"step_00000004 was trained with steps=4, here 6; learning_rate=0.01, here 0.5;"
    ):
        more.resume()
    assert more.steps_done == 0
    assert more.resume(strict=False) == 4 and more.position == 4
    more.run(progress=False)
    assert more.position == 10 and [row["step"] for row in more.history] == [1, 2, 3, 4, 5, 6]


def tied():
    model = Toy()
    model.out.weight = model.embedding.weight
    return model


def test_tied_weights_stay_tied(tmp_path):
    made, again = (trainer(model=tied(), folder=tmp_path / "run") for _ in range(2))
    made.run(3, progress=False)
    again.resume()
    assert again.model.out.weight is again.model.embedding.weight
    made.run(progress=False), again.run(progress=False)
    same_bits(made, again)


# ---------------------------------------------------------------- Ctrl-C


@pytest.fixture
def ctrl_c():
    """Ctrl-C as usual, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_middle_of_a_step_gives_the_step_up(tmp_path, ctrl_c):
    """Between two micro-batches of step 4, after a forward that counted in a buffer."""
    calls = []

    def pressing(number):
        calls.append(number)
        return batches(number)

    class Pressed(Toy):
        def forward(self, input_ids, labels=None):
            out = super().forward(input_ids, labels)
            if len(calls) == 12 and torch.equal(input_ids, batches(10)["input_ids"]):
                signal.raise_signal(signal.SIGINT)
            return out

    given = settings(steps=6, accumulation=3)
    made, whole = trainer(given, Pressed(), pressing, folder=tmp_path / "run"), trainer(given)
    with pytest.raises(KeyboardInterrupt) as caught:
        made.run(progress=False)
    assert caught.value.__notes__ == [f"3 of 6 steps are done; checkpoint step_00000003 is in {tmp_path / 'run'}."]
    assert made.steps_done == 3 and all(p.grad is None for p in made.model.parameters())
    whole.run(3, progress=False)
    same_bits(whole, made)
    again = trainer(given, folder=tmp_path / "run")
    assert again.resume() == 3
    for going_on in (whole, again, made):  # the one in memory is good as well
        going_on.run(progress=False)
    same_bits(whole, again), same_bits(whole, made)


def test_ctrl_c_in_an_update_waits_for_its_end(tmp_path, ctrl_c):
    made, whole = trainer(folder=tmp_path / "run"), trainer()
    update, reached = made.optimizer.step, []

    def pressed():
        if made.steps_done == 2:
            signal.raise_signal(signal.SIGINT)
        update()
        reached.append(made.steps_done)

    made.optimizer.step = pressed
    with pytest.raises(KeyboardInterrupt):
        made.run(progress=False)
    assert reached == [0, 1, 2] and made.steps_done == 3 == len(made.history)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = trainer(folder=tmp_path / "run")
    assert again.resume() == 3
    again.run(progress=False), whole.run(progress=False)
    same_bits(whole, again)


def test_ctrl_c_while_saving_is_made_up_for(tmp_path, monkeypatch):
    made = trainer(settings(checkpoint_every=2), folder=tmp_path / "run")
    real, pressed = saving.save_file, []

    def pressing(*arguments, **more):
        real(*arguments, **more)
        if "step_00000004" in str(arguments[1]) and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(saving, "save_file", pressing)
    with pytest.raises(KeyboardInterrupt):
        made.run(progress=False)
    assert pressed and names(tmp_path / "run") == ["step_00000002", "step_00000004"]
    saving.check(tmp_path / "run" / "step_00000004")


@pytest.mark.parametrize("error", [KeyError, FileNotFoundError, SystemExit])
def test_what_fails_in_a_callback_loses_nothing(tmp_path, error):
    def fail(t, row):
        if row["step"] == 3:
            raise error("gone")

    made = trainer(folder=tmp_path / "run", callbacks=[fail])
    with pytest.raises(error) as caught:
        made.run(progress=False)
    assert caught.value.__notes__ == [f"3 of 10 steps are done; checkpoint step_00000003 is in {tmp_path / 'run'}."]
    again = trainer(folder=tmp_path / "run")
    assert again.resume() == 3


# ---------------------------------------------------------------- kill -9


def started(folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, str(JOB), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    """kill -9 after steps 4 and 8, each between two checkpoints; half a checkpoint is left behind, too."""
    folder, seen = tmp_path / "run", []
    for last in (4, 8, None):
        with started(folder) as process:
            for line in process.stdout:
                seen.append(json.loads(line).get("step", "end"))
                if seen[-1] == last:
                    process.kill()
                    break
            said = process.stderr.read()
            assert (process.wait(60) != 0) == (last is not None), said
        if last:
            (folder / ".step_00000009.abc").mkdir()  # as a kill in the middle of a write leaves it
            (folder / ".step_00000009.abc" / "model.safetensors").write_text("half")
    assert seen[:4] == [1, 2, 3, 4] and seen[-2:] == [12, "end"] and len(seen) > 13  # some steps were taken twice
    assert names(folder) == ["step_00000009", "step_00000012"]
    job = runpy.run_path(str(JOB))
    whole = Trainer(job["model"](), job["batches"], job["settings"]())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    whole.run(progress=False)
    torch.set_num_threads(before)
    again = Trainer(job["model"](5), job["batches"], job["settings"](), folder=folder)
    assert again.resume() == 12
    same_bits(whole, again)
