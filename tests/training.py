"""A model of a few hundred numbers and endless batches for it: what the tests of training train."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.train import Trainer, TrainSettings

STATIC = ("step", "loss", "learning_rate", "gradient_norm")  # of a record; seconds differ


class Toy(nn.Module):
    """Matrices, a bias, a norm, dropout and a buffer that training changes; the same start each time."""

    def __init__(self, dropout=0.2, hidden=6):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, 11)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, input_ids, labels=None):
        self.seen += self.training * input_ids.numel()
        logits = self.out(self.dropout(self.norm(self.embedding(input_ids))))
        if labels is None:
            return SimpleNamespace(logits=logits, loss=None)
        loss = F.cross_entropy(logits.flatten(0, 1).double(), labels.flatten(), reduction="sum")
        return SimpleNamespace(logits=logits, loss=loss / (labels != -100).sum().clamp(min=1))


def batches(number):
    """Ids (3, 8), and as labels what follows them."""
    ids = torch.randint(1, 11, (3, 9), generator=torch.Generator().manual_seed(number))
    return {"input_ids": ids[:, :-1].clone(), "labels": ids[:, 1:].clone()}


def settings(**changes):
    return TrainSettings(**{"steps": 10, "learning_rate": 0.01, "device": "cpu", **changes})


def trainer(given=None, model=None, data=batches, **more):
    return Trainer(model or Toy(), data, given or settings(), **more)


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
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def encoder():
    """A small encoder with dropout, the same start each time."""
    config = BigBirdConfig(30, 24, 2, 4, 40, 100, block_size=4, num_random_blocks=1, initializer_range=0.2)
    torch.manual_seed(0)
    return BigBirdForMaskedLM(config)
