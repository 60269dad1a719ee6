"""Checkpoints: resuming gives the same bits, a crash at any moment leaves a good one, a damaged one is passed over."""

import json
import logging
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training import Toy, batches, settings, trainer

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.train import Trainer, saving

JOB = Path(__file__).parent / "distributed" / "job.py"
STATIC = ("step", "loss", "learning_rate", "gradient_norm")


def same_bits(one, other):
    """Weights, buffers, the optimiser's memory and the history, to the bit."""
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (one, other))
    assert mine.keys() == theirs.keys() and mine
    for place in mine:
        assert mine[place].keys() == theirs[place].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(mine[place][key], theirs[place][key]) for key in mine[place])
    for name in STATIC:
        assert one.history.column(name) == other.history.column(name)
    assert one.position == other.position


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def encoder():
    config = BigBirdConfig(30, 24, 2, 4, 40, 100, block_size=4, num_random_blocks=1, initializer_range=0.2)
    torch.manual_seed(0)
    return BigBirdForMaskedLM(config)


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


class Configured(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.config = BigBirdConfig(30, 24, 1, 4, 40, 100, block_size=4, pattern_seed=seed)
        self.linear = nn.Linear(2, 3)


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


def no_norm():
    model = Toy()
    model.norm = nn.Identity()
    return model


def another_layer():
    model = Toy()
    model.more = nn.Linear(2, 2)
    return model


def half_frozen():
    model = Toy()
    model.embedding.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            lambda: Toy(hidden=4),
            r"embedding.weight is \(11, 6\) float32 there and \(11, 4\) float32 here, and 3 more",
        ),
        (lambda: Toy().double(), r"embedding.weight is \(11, 6\) float32 there and \(11, 6\) float64 here, and 4 more"),
        (no_norm, "does not fit this model: it has norm.bias, and the model does not, and 1 more"),
        (another_layer, "the model has more.weight, and it does not, and 1 more"),
        (half_frozen, "embedding.weight was trained there and is frozen here$"),
    ],
)
def test_another_model_is_refused_and_stays_as_it_was(tmp_path, model, says):
    trainer(folder=tmp_path / "run").run(2, progress=False)
    other = trainer(model=model(), folder=tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    with pytest.raises(ValueError, match=says):
        other.resume(strict=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.model.state_dict().items())
    assert other.steps_done == 0 and not other.optimizer.state


def test_a_model_with_another_config_is_refused(tmp_path):
    config = BigBirdConfig(30, 24, 1, 4, 40, 100, block_size=4)
    other = BigBirdConfig(30, 24, 1, 4, 40, 100, block_size=4, pattern_seed=1, hidden_dropout_prob=0.0)
    Trainer(BigBirdForMaskedLM(config), batches, settings(), folder=tmp_path / "run").run(1, progress=False)
    again = Trainer(BigBirdForMaskedLM(other), batches, settings(), folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"config.hidden_dropout_prob=0.1, here 0.0; config.pattern_seed=0, here 1"):
        again.resume()
    assert again.resume(strict=False) == 1


# ---------------------------------------------------------------- damage


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "halved": halve,
    "one bit": flip,
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["SHA256SUMS", "model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, caplog, name, kind):
    given = settings(steps=6, checkpoint_every=1, keep=2)
    whole, half, again = (trainer(given, folder=tmp_path / folder) for folder in "abb")
    whole.run(progress=False)
    half.run(4, progress=False)
    DAMAGE[kind](tmp_path / "b" / "step_00000004" / name)
    with caplog.at_level(logging.WARNING):
        assert again.resume() == 3
    (said,) = caplog.messages
    assert "step_00000004 is damaged: " in said and said.endswith("the one before it is tried")
    assert name in said or kind != "gone"
    again.run(1, progress=False)
    assert names(tmp_path / "b") == ["step_00000003", "step_00000004"]
    saving.check(tmp_path / "b" / "step_00000004")  # written anew
    again.run(progress=False)
    same_bits(whole, again)


def test_a_good_one_is_not_given_up_for_damaged_ones_of_later_steps(tmp_path):
    made = trainer(settings(steps=9, checkpoint_every=4, keep=2), folder=tmp_path / "run")
    made.run(8, progress=False)
    halve(tmp_path / "run" / "step_00000008" / "model.safetensors")
    again = trainer(settings(steps=9, checkpoint_every=4, keep=1), folder=tmp_path / "run")
    assert again.resume() == 4
    again.run(1, progress=False)
    assert names(tmp_path / "run") == ["step_00000005"]


def test_where_all_are_damaged_nothing_is_resumed(tmp_path):
    trainer(settings(checkpoint_every=1), folder=tmp_path / "run").run(2, progress=False)
    for path in saving.checkpoints(tmp_path / "run"):
        halve(path / "state.json")
    with pytest.raises(ValueError, match=r"all 2 checkpoints in .*run are damaged; start again in another folder"):
        trainer(folder=tmp_path / "run").resume()


def test_a_sums_file_is_what_sha256sum_reads(tmp_path):
    made = trainer(folder=tmp_path / "run")
    made.run(1, progress=False)
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=made.save(), check=True, capture_output=True)


# ---------------------------------------------------------------- no room


def test_a_full_disk_is_noticed_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=250_000))
    made = trainer(settings(keep=2), folder=tmp_path / "run")
    for start in (made.run, made.step):
        with pytest.raises(
            OSError, match=r"run has 250 kB free, and 3 checkpoints of 10\d kB must fit \(keep=2, and one"
        ):
            start()
    assert made.steps_done == 0 and not made.history
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=350_000))
    made.step()


def test_the_size_that_is_asked_for_is_enough(tmp_path):
    asked = []
    made = Trainer(encoder(), batches, settings(checkpoint_every=100, steps=300), folder=tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "check_folder", lambda folder, size, keep: (folder.mkdir(), asked.append(size)))
        made.run(progress=False)
    written = sum(file.stat().st_size for file in made.save().iterdir())
    assert 0.6 * asked[0] < written < asked[0]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_disk_that_fills_up_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch, name):
    made = trainer(settings(checkpoint_every=2), folder=tmp_path / "run")
    made.run(2, progress=False)
    full = OSError(28, "No space left on device")

    def no_room(real):
        def write(*arguments, **more):
            if name in str(arguments):
                raise full
            return real(*arguments, **more)

        return write

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_file", no_room(saving.save_file))
        patch.setattr(Path, "write_text", no_room(Path.write_text))
        with pytest.raises(
            OSError, match=r"step 4 could not be written to .*run \(No space left on device\)"
        ) as caught:
            made.run(progress=False)
    assert caught.value.__notes__ == [f"4 of 10 steps are done; checkpoint step_00000002 is in {tmp_path / 'run'}."]
    assert names(tmp_path / "run") == ["step_00000002"]
    made.save()  # nothing is lost in memory
    whole, again = trainer(), trainer(settings(checkpoint_every=2), folder=tmp_path / "run")
    assert again.resume() == 4
    whole.run(progress=False), again.run(progress=False)
    same_bits(whole, again)


def test_a_folder_that_cannot_be_written_is_noticed_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder, error, says in (
        (tmp_path / "no" / "such", FileNotFoundError, r"there is no folder .*no to make 'such' in, .*; make it first"),
        (tmp_path / "file", OSError, "file cannot hold checkpoints .*; give a folder that you may write to"),
        (tmp_path / "file" / "in it", OSError, "cannot hold checkpoints"),
    ):
        made = trainer(folder=folder)
        with pytest.raises(error, match=says):
            made.run()
        assert made.steps_done == 0

    def refuse(self, *arguments, **more):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        PermissionError, match=r"locked cannot hold checkpoints \(Permission denied\); give a folder that"
    ):
        trainer(folder=tmp_path / "locked").step()


def test_a_folder_of_another_training_is_not_overwritten(tmp_path):
    trainer(folder=tmp_path / "run").run(2, progress=False)
    made = trainer(folder=tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"holds checkpoints already, the newest step_00000002: call resume\(\)"):
        made.run()
    assert made.steps_done == 0 and names(tmp_path / "run") == ["step_00000002"]


# ---------------------------------------------------------------- Ctrl-C


def test_ctrl_c_in_the_middle_of_a_step_gives_the_step_up(tmp_path):
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


def test_ctrl_c_in_an_update_waits_for_its_end(tmp_path):
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


def test_what_fails_in_a_callback_loses_nothing(tmp_path):
    made = trainer(folder=tmp_path / "run", callbacks=[lambda t, row: {}[row["step"]] if row["step"] == 3 else None])
    with pytest.raises(KeyError) as caught:
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
                seen.append(json.loads(line)["step"])
                if seen[-1] == last:
                    process.kill()
                    break
            said = process.stderr.read()
            assert process.wait(60) == (-9 if last and os.name != "nt" else process.returncode), said
        if last:
            (folder / ".step_00000009.abc").mkdir()  # as a kill in the middle of a write leaves it
            (folder / ".step_00000009.abc" / "model.safetensors").write_text("half")
    assert seen[:4] == [1, 2, 3, 4] and seen[-1] == 12 and len(seen) > 12  # some steps were taken twice
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
