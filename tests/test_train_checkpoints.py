"""A checkpoint that is damaged, of another model, or has no room: said in one sentence, and the good ones stay."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn
from training import Toy, batches, encoder, names, same_bits, settings, trainer

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.train import Trainer, saving

# ---------------------------------------------------------------- another model


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
    "noise": lambda file: file.write_bytes(bytes(range(256))),
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
    first, second = caught.value.__notes__
    assert first == str(caught.value)  # it was tried once more
    assert second == f"4 of 10 steps are done; checkpoint step_00000002 is in {tmp_path / 'run'}."
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
