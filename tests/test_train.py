"""A step is what it says, against an AdamW written by hand; stops, stumbles, settings. See test_train_survives, too."""

import dataclasses
import math
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training import Toy, batches, settings, trainer

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.train import History, Trainer, TrainSettings, labelled

# ---------------------------------------------------------------- one step


def adamw_by_hand(model, steps, clip, decay, rates, betas=(0.8, 0.95), eps=1e-8):
    """Loshchilov and Hutter 2019, algorithm 2, the gradient clipped first; matrices alone decay."""
    memory = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()}
    losses, norms = [], []
    for step in range(1, steps + 1):
        model.zero_grad()
        loss = model(**batches(step - 1)).loss
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        losses.append(loss.item()), norms.append(norm)
        for name, p in model.named_parameters():
            g = p.grad * min(1.0, clip / norm)
            m, v = memory[name]
            m.copy_(betas[0] * m + (1 - betas[0]) * g)
            v.copy_(betas[1] * v + (1 - betas[1]) * g * g)
            with torch.no_grad():
                if p.ndim == 2:
                    p *= 1 - rates[step - 1] * decay
                p -= rates[step - 1] * (m / (1 - betas[0] ** step)) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
    return losses, norms


def test_steps_are_those_of_adamw_by_hand():
    given = settings(steps=5, learning_rate=0.1, warmup=2, clip=0.05, weight_decay=0.3, betas=(0.8, 0.95))
    rates = [0.05, 0.1, 0.075, 0.05, 0.025]
    mine, theirs = trainer(given, Toy(dropout=0.0).double()), Toy(dropout=0.0).double()
    mine.run(progress=False)
    losses, norms = adamw_by_hand(theirs, 5, 0.05, 0.3, rates)
    assert min(norms) > 0.05  # so that it is clipped
    for (name, p), q in zip(mine.model.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12), name
    assert mine.history.column("loss") == ([1, 2, 3, 4, 5], pytest.approx(losses, abs=1e-12))
    assert mine.history.column("gradient_norm")[1] == pytest.approx(norms, abs=1e-12)
    assert mine.history.column("learning_rate")[1] == pytest.approx(rates)
    assert all(row["seconds"] > 0 for row in mine.history) and mine.position == mine.steps_done == 5


def test_without_clip_the_gradient_is_left_alone():
    one, other = (trainer(settings(steps=1, clip=clip), Toy(dropout=0.0).double()) for clip in (None, 1e9))
    assert one.step()["loss"] == other.step()["loss"]
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_accumulation_is_one_large_batch():
    """Documents of four micro-batches have 5, 1, 0 and 9 labels: the mean is over labels, not over micro-batches."""
    parts = [batches(number) for number in range(4)]
    for part, many in zip(parts, (5, 1, 0, 9), strict=True):
        labels = torch.full_like(part["labels"], -100)
        labels.view(-1)[:many] = part["labels"].view(-1)[:many]
        part["labels"] = labels
    large = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    given = settings(steps=1, learning_rate=0.1, clip=0.05)
    one = trainer(given, Toy(dropout=0.0).double(), lambda number: large)
    four = trainer(dataclasses.replace(given, accumulation=4), Toy(dropout=0.0).double(), lambda number: parts[number])
    whole, split = one.step(), four.step()
    for name in ("loss", "gradient_norm"):
        assert split[name] == pytest.approx(whole[name], abs=1e-12)
    for p, q in zip(one.model.parameters(), four.model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12) and torch.allclose(p.grad, q.grad, rtol=0, atol=1e-12)
    assert (one.position, four.position) == (1, 4)


@pytest.mark.parametrize(
    ("batch", "weight"),
    [
        ({"input_ids": torch.ones(3, 7), "labels": torch.tensor([[1, -100], [-100, -100], [0, 5]])}, 3),
        ({"input_ids": torch.ones(3, 7), "labels": torch.tensor([1, 0, -100])}, 2),
        ({"input_ids": torch.ones(3, 7), "labels": torch.ones(3) / 2}, 3),
        ({"task": "squad", "input_ids": torch.ones(4, 7), "start_positions": torch.ones(4)}, 4),
    ],
)
def test_a_batch_weighs_as_many_as_its_loss_is_the_mean_of(batch, weight):
    assert labelled(batch) == weight


def test_the_weight_of_a_batch_may_be_given():
    def weight(batch):
        return float(batch["input_ids"][0, 0])

    seen = [batches(number) for number in range(2)]
    given = settings(steps=1, accumulation=2)
    row = trainer(given, Toy(dropout=0.0), weight=weight).step()
    want = [Toy(dropout=0.0)(**batch).loss.item() for batch in seen]
    a, b = map(weight, seen)
    assert a != b and row["loss"] == pytest.approx((a * want[0] + b * want[1]) / (a + b), rel=1e-6)


def test_dropout_follows_from_seed_and_micro_batch_and_leaves_no_trace():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    made = trainer(settings(steps=9, learning_rate=1e-30), Toy(dropout=0.5), lambda number: batches(0))
    torch.set_rng_state(before)
    losses = [made.step()["loss"] for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), before) and len(set(losses)) == 3
    torch.manual_seed(4)
    again = trainer(settings(steps=9, learning_rate=1e-30), Toy(dropout=0.5), lambda number: batches(0))
    assert [again.step()["loss"] for _ in range(3)] == losses
    other = trainer(settings(steps=9, learning_rate=1e-30, seed=1), Toy(dropout=0.5), lambda number: batches(0))
    assert other.step()["loss"] not in losses


def test_bfloat16_is_autocast_around_float32_weights():
    seen = []

    class Spy(Toy):
        def forward(self, input_ids, labels):
            out = super().forward(input_ids, labels)
            seen.append((out.logits.dtype, self.training))
            return out

    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        seen.clear()
        made = trainer(
            settings(steps=1, precision=precision), Spy(), evaluate=lambda model: {"v": model(**batches(0)).loss}
        )
        made.step()
        assert seen == [(dtype, True), (dtype, False)]
        assert {p.dtype for p in made.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_encoder_learns(precision):
    config = BigBirdConfig(30, 24, 2, 4, 40, 100, block_size=4, num_random_blocks=1, initializer_range=0.1)
    torch.manual_seed(0)
    model = BigBirdForMaskedLM(config)
    x = torch.randint(1, 30, (4, 38), generator=torch.Generator().manual_seed(0))
    given = settings(steps=30, learning_rate=1e-2, warmup=0.1, precision=precision)
    history = Trainer(model, lambda number: {"input_ids": x, "labels": x}, given).run(progress=False)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_torch_compile_and_frozen_parameters(tmp_path):
    model = Toy()
    model.embedding.weight.requires_grad_(False)
    before = model.embedding.weight.clone()
    made = Trainer(torch.compile(model, backend="eager"), batches, settings(steps=2), folder=tmp_path / "run")
    made.run(progress=False)
    assert made.model is model and torch.equal(model.embedding.weight, before)
    fresh = Toy()
    fresh.embedding.weight.requires_grad_(False)
    again = Trainer(fresh, batches, settings(steps=2), folder=tmp_path / "run")
    assert again.resume() == 2
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), fresh.parameters(), strict=True))


# ---------------------------------------------------------------- the learning rate


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({"warmup": 4}, [0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2]),
        ({"warmup": 0.5}, [0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2]),
        ({"warmup": 0.05}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"warmup": 8}, [i / 8 for i in range(1, 9)]),
        ({"warmup": 2, "decay": "constant"}, [0.5, 1, 1, 1, 1, 1, 1, 1]),
        ({"decay": "cosine"}, [math.cos(math.pi * i / 16) ** 2 for i in range(8)]),
    ],
)
def test_the_rate_rises_and_falls(given, rates):
    made = TrainSettings(steps=8, learning_rate=0.3, **given)
    assert [made.rate(step) for step in range(1, 9)] == pytest.approx([0.3 * rate for rate in rates])


# ---------------------------------------------------------------- many steps


def test_run_may_be_cut_anywhere_and_mixed_with_steps():
    whole, parts = trainer(settings(steps=7)), trainer(settings(steps=7))
    whole.run(progress=False)
    parts.run(2, progress=False)
    assert parts.steps_done == 2
    parts.step()
    parts.run(0, progress=False)
    assert parts.steps_done == 3
    assert parts.run(100, progress=False) is parts.history and parts.steps_done == 7
    assert parts.history.column("loss") == whole.history.column("loss")
    assert parts.run(progress=False)[-1]["step"] == 7  # nothing left to do is no error
    with pytest.raises(ValueError, match="all 7 steps are done; for more, resume with a larger steps="):
        parts.step()


def test_stop_from_a_callback_and_from_a_thread(tmp_path):
    made = trainer(settings(steps=9), folder=tmp_path / "run")
    made.callbacks.append(lambda t, row: t.stop() if row["step"] == 4 else None)
    made.run(progress=False)
    assert made.steps_done == 4 and (tmp_path / "run" / "step_00000004").is_dir()
    made.run(2, progress=False)
    assert made.steps_done == 6  # a stop is used up
    half, go_on = threading.Event(), threading.Event()

    def slow(t, row):
        half.set()
        assert go_on.wait(30)

    made = trainer(settings(steps=1000), callbacks=[slow])
    thread = threading.Thread(target=made.run, kwargs={"progress": False})
    thread.start()
    assert half.wait(30)
    made.stop()
    go_on.set()
    thread.join(30)
    assert not thread.is_alive() and made.steps_done == 1
    made.stop()
    assert made.run(progress=False) is made.history and made.steps_done == 1  # a run that had not begun, too


def test_callbacks_see_the_record_with_what_was_evaluated():
    seen = []
    made = trainer(
        settings(steps=5, evaluate_every=2),
        evaluate=lambda model: {"accuracy": torch.tensor(0.25), "drawn": torch.rand(()), "training": model.training},
        callbacks=[lambda t, row: seen.append((t.steps_done, row))],
    )
    history = made.run(progress=False)
    assert [row for _, row in seen] == list(history) and [step for step, _ in seen] == [1, 2, 3, 4, 5]
    steps, values = history.column("accuracy")
    assert steps == [2, 4, 5] and values == [0.25] * 3  # and after the last
    assert len(set(history.column("drawn")[1])) == 1 and history.column("training")[1] == [0.0] * 3
    assert history == made.run(progress=False)


def test_evaluation_changes_no_step():
    with_it = trainer(settings(steps=4, evaluate_every=1), evaluate=lambda model: {"x": torch.rand(9).sum()})
    without = trainer(settings(steps=4))
    for made in (with_it, without):
        made.run(progress=False)
    assert with_it.history.column("loss") == without.history.column("loss")
    assert all(torch.equal(p, q) for p, q in zip(with_it.model.parameters(), without.model.parameters(), strict=True))
    graphs = []
    made = trainer(settings(steps=1), evaluate=lambda m: graphs.append(m(**batches(0)).loss.requires_grad) or {})
    made.run(progress=False)
    assert graphs == [False]


def test_progress_is_a_line_with_loss_and_rate(capsys):
    trainer(settings(steps=3, learning_rate=0.5)).run()
    said = capsys.readouterr().err
    assert "3/3" in said and "loss=" in said and "rate=0.17" in said
    trainer(settings(steps=3)).run(progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_history_plots():
    pytest.importorskip("matplotlib", reason="needs the extra lab")
    history = History({"step": i, "loss": 1 / i, "learning_rate": 0.1, "gradient_norm": 1.0} for i in range(1, 6))
    history[3]["accuracy"] = 0.5
    figure = history.plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "learning rate", "accuracy"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[i, 1 / i] for i in range(1, 6)]
    assert figure.axes[2].lines[0].get_xydata().tolist() == [[4, 0.5]]
    assert [axes.get_title() for axes in history.plot("gradient_norm").axes] == ["gradient norm"]
    with pytest.raises(ValueError, match="no step has 'f1'; there are step, loss"):
        history.plot("f1")
    with pytest.raises(ValueError, match="nothing to plot before the first step"):
        History().plot()


def test_the_room_is_light():
    heavy = "('matplotlib', 'ipywidgets', 'transformers')"
    code = f"import sys, bigbird_mini.train; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda(tmp_path, precision):
    given = settings(steps=6, accumulation=2, precision=precision, device="auto")
    whole, half = trainer(given), trainer(given, folder=tmp_path / "run")
    assert whole.device.type == "cuda"
    before = torch.cuda.get_rng_state()
    whole.run(progress=False), half.run(3, progress=False)
    assert torch.equal(before, torch.cuda.get_rng_state())
    again = trainer(given, folder=tmp_path / "run")
    assert again.resume() == 3
    again.run(progress=False)
    assert again.history.column("loss")[1] == pytest.approx(whole.history.column("loss")[1], rel=1e-4)


def test_logits_and_loss_of_the_toy_agree():
    batch = batches(0)
    out = Toy(dropout=0.0)(**batch)
    assert out.loss.item() == pytest.approx(F.cross_entropy(out.logits.flatten(0, 1), batch["labels"].flatten()).item())
    assert isinstance(Toy(), nn.Module)


def test_what_the_documentation_shows_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(blocks), names)
    assert names["trainer"].steps_done == 6 and (tmp_path / "my_training" / "step_00000006").is_dir()
    per_epoch, padding = re.match(r"(\d+) batches an epoch, (.*)% of", capsys.readouterr().out).groups()
    assert int(per_epoch) > 5 and float(padding) < 10
