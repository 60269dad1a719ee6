"""A loss that is no number, settings that cannot be, batches that are broken: one sentence, and nothing is lost."""

import math

import pytest
import torch
from training import Toy, batches, names, settings, trainer

from bigbird_mini.train import Diverged, TrainSettings

# ---------------------------------------------------------------- no number any more


class Poisoned(Toy):
    """Its loss, or one gradient, is no number in one micro-batch."""

    def __init__(self, at, gradient_only, value=math.nan):
        super().__init__()
        self.at, self.gradient_only, self.value, self.calls = at, gradient_only, value, 0

    def forward(self, input_ids, labels):
        out = super().forward(input_ids, labels)
        if self.training and self.calls == self.at:
            extra = self.out.bias.sum()
            if self.gradient_only:  # a root at nothing: no slope, and the loss as it was
                out.loss = out.loss + (extra - extra.detach()).abs().sqrt()
            else:
                out.loss = out.loss * self.value
        self.calls += self.training
        return out


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_the_update(tmp_path, value):
    made = trainer(settings(steps=9, checkpoint_every=2), Poisoned(5, False, value), folder=tmp_path / "run")
    made.run(5, progress=False)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    with pytest.raises(Diverged) as caught:
        made.run(progress=False)
    said = str(caught.value)
    assert (
        f"step 6: the loss is {value}, and no gradient is finite; in the step before, the largest was that of" in said
    )
    assert (
        "after step 5, and resume(strict=False) takes checkpoint step_00000005 with other settings. Try a low" in said
    )
    assert "learning_rate (now 0.01), " in said and said.endswith("(now 1.0), and look at the micro-batches 5 to 5")
    largest = max(made.model.named_parameters(), key=lambda pair: made._lengths[pair[0]])[0]
    assert f"that of {largest}, its length" in said
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.model.state_dict().items())
    assert made.steps_done == 5 and len(made.history) == 5
    fresh = trainer(settings(steps=9), Toy(), folder=tmp_path / "run")
    assert fresh.resume() == 5 and all(torch.equal(p, before[name]) for name, p in fresh.model.named_parameters())
    assert made.step()["loss"] > 0  # nothing is poisoned in memory


def test_what_diverges_keeps_the_checkpoints_before(tmp_path):
    made = trainer(settings(steps=9, checkpoint_every=2), Poisoned(5, False), folder=tmp_path / "run")
    with pytest.raises(Diverged) as caught:
        made.run(progress=False)
    assert names(tmp_path / "run") == ["step_00000002", "step_00000004"]  # and none of step 5, perhaps ruined already
    assert caught.value.__notes__ == [f"5 of 9 steps are done; checkpoint step_00000004 is in {tmp_path / 'run'}."]


def test_a_gradient_that_is_no_number_is_named():
    made = trainer(settings(steps=9, precision="bfloat16", clip=None), Poisoned(1, True))
    made.step()
    with pytest.raises(
        Diverged, match=r"step 2: the loss is \d.*; the largest gradient is that of out.bias, its length "
    ):
        made.step()
    with pytest.raises(
        Diverged, match=r"smaller clip \(now None\), precision='float32', and look at the micro-batches"
    ):
        trainer(settings(precision="bfloat16", clip=None), Poisoned(0, False)).step()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    made = trainer(settings(steps=9), folder=tmp_path / "run")
    made.run(2, progress=False)
    with torch.no_grad():
        made.model.out.weight[0, 0] = math.inf
    made.steps_done = 3
    with pytest.raises(Diverged, match=r"step 3: the update left no number in out.weight; it is not saved"):
        made.save()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step_00000002"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps=0 must be a whole number, at least 1"),
        ({"steps": 1.5}, "steps=1.5 must be a whole number"),
        ({"accumulation": True}, "accumulation=True must be a whole number"),
        ({"keep": 0}, "keep=0 must be a whole number, at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every=0 must be a whole number, at least 1"),
        ({"seed": -1}, "seed=-1 must be a whole number, at least 0"),
        ({"learning_rate": 0}, "learning_rate=0 must be a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate=nan must be a number above 0"),
        ({"learning_rate": math.inf}, "learning_rate=inf must be a number above 0"),
        ({"learning_rate": "1e-4"}, "learning_rate='1e-4' must be a number above 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 must be a number, at least 0"),
        ({"clip": 0}, "clip=0 must be a number above 0, or None"),
        ({"warmup": 11}, "warmup=11 must be a share below 1, or a whole number of steps up to steps=10"),
        ({"warmup": 2.5}, "warmup=2.5 must be a share"),
        ({"warmup": -1}, "warmup=-1 must be a share"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) must be two numbers, at least 0 and below 1"),
        ({"betas": 0.9}, "betas=0.9 must be two numbers"),
        ({"decay": "step"}, "decay='step' is not known; allowed: 'linear', 'cosine', 'constant'"),
        ({"precision": "float16"}, "precision='float16' is not known; allowed: 'float32', 'bfloat16'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        TrainSettings(**{"steps": 10, **changes})


def frozen():
    return Toy().requires_grad_(False)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: trainer(settings(device="tpu")), ValueError, "device='tpu' is not known; allowed: 'auto', 'cpu'"),
        (lambda: trainer(settings(device="meta")), ValueError, "device='meta' is not known"),
        (lambda: trainer(settings(device="cuda:99")), ValueError, "device='cuda:99' is not there: PyTorch sees"),
        (lambda: trainer(data=[batches(0)]), TypeError, "batches must be a function .* not list; of a list: lambda"),
        (lambda: trainer(model=frozen()), ValueError, "the model has no parameter to train"),
        (
            lambda: trainer(data=lambda n: None).step(),
            TypeError,
            r"batches\(0\) must be a dict of tensors, not NoneType",
        ),
        (
            lambda: trainer(data=lambda n: {"a": 1}).step(),
            TypeError,
            r"batches\(0\) must be a dict of tensors, not dict",
        ),
        (
            lambda: trainer(data=lambda n: batches(n) | {"labels": torch.full((3, 8), -100)}).step(),
            ValueError,
            "micro-batches 0 to 0 have no label at all",
        ),
        (
            lambda: trainer(data=lambda n: {"input_ids": batches(n)["input_ids"]}).step(),
            ValueError,
            r"model\(\*\*batch\).loss must be one number .* of a batch with input_ids has none. Are the labels in",
        ),
        (lambda: trainer(evaluate=lambda model: 0.5).run(), TypeError, r"must return a dict of numbers, not float"),
        (lambda: trainer(evaluate=lambda model: {"loss": 0.5}).run(), ValueError, "'loss', which every record has"),
        (lambda: trainer().save(), ValueError, "nothing can be saved: there is no step done yet"),
        (lambda: trainer().resume(), ValueError, "there is no folder to resume from"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_processes_that_cannot_share_a_step_are_told_before_they_meet(monkeypatch):
    monkeypatch.setenv("RANK", "1"), monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match="accumulation=3 micro-batches cannot be shared evenly by 2 processes; make it a"
    ):
        trainer(settings(accumulation=3))


def test_a_broken_batch_is_named_and_nothing_is_lost():
    def broken(number):
        return batches(number) if number < 5 else {}[number]

    made, whole = trainer(settings(steps=4, accumulation=2), data=broken), trainer(settings(steps=4, accumulation=2))
    with pytest.raises(KeyError) as caught:
        made.run(progress=False)
    assert caught.value.__notes__ == [
        "This was micro-batch 5, of step 3.",
        "2 of 4 steps are done; no checkpoint is kept.",
    ]
    made.batches = batches
    made.run(progress=False), whole.run(progress=False)
    assert made.history.column("loss") == whole.history.column("loss")
