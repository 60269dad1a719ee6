"""A teacher with full attention and a student with BigBird's: the smallest distillation that the dashboard can watch.

The weights of the terms and the temperature stand in ``dials``, which every step reads; ``compare`` shows the attention
of both in one text. Also a cell of the browser tests' notebook, so it imports nothing from here.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM, BlockPattern, attention
from bigbird_mini.train import Trainer, TrainSettings


class Kept:
    """attention() that keeps its weights, with their gradients."""

    def __init__(self):
        self.weights = []

    def __call__(self, q, k, v, p, **more):
        out, weights = attention(q, k, v, p, return_weights=True, **more)
        self.weights.append(weights.dense())  # (B, H, n, n)
        return out


class Distiller(nn.Module):
    """loss = logits * T^2 KL(teacher || student) + attention * KL on the student's keys + hidden * squared error."""

    def __init__(self, layers=2, seed=0):
        super().__init__()
        sizes = {"vocab_size": 12, "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
        config = BigBirdConfig(
            **sizes, intermediate_size=64, block_size=4, num_random_blocks=1, global_blocks=(0,), initializer_range=0.3
        )
        torch.manual_seed(seed)
        self.kept = {"teacher": Kept(), "student": Kept()}
        self.teacher = BigBirdForMaskedLM(config, BlockPattern.full, self.kept["teacher"]).requires_grad_(False)
        self.student = BigBirdForMaskedLM(config, attention_fn=self.kept["student"])
        self.patterns = [config.pattern(8, layer) for layer in range(layers)]
        self.dials = {"temperature": 2.0, "logits": 1.0, "attention": 1.0, "hidden": 0.0}
        self.dial_limits = {"temperature": (0.5, 8.0)}
        self.terms = {}
        self.text = torch.randint(12, (1, 32), generator=torch.Generator().manual_seed(1))

    def both(self, ids):
        """Outputs and attention weights of teacher and student."""
        for kept in self.kept.values():
            kept.weights.clear()
        with torch.no_grad():
            teacher = self.teacher(ids)
        return teacher, self.student(ids), self.kept["teacher"].weights, self.kept["student"].weights

    def forward(self, input_ids):
        teacher, student, t, s = self.both(input_ids)
        T = self.dials["temperature"]
        wanted, got = ((x.logits / T).log_softmax(-1) for x in (teacher, student))  # (B, n, V)
        terms = {"logits": T**2 * F.kl_div(got, wanted, log_target=True, reduction="none").sum(-1).mean()}
        terms["attention"] = torch.stack([on_its_keys(a, b) for a, b in zip(t, s, strict=True)]).mean()
        terms["hidden"] = F.mse_loss(student.last_hidden_state, teacher.last_hidden_state)
        self.terms = {f"{name} term": float(term.detach()) for name, term in terms.items()}
        return SimpleNamespace(loss=sum(self.dials[name] * term for name, term in terms.items()))

    def compare(self):
        _, _, t, s = self.both(self.text)
        words = [f"w{k}" for k in self.text[0].tolist()]
        return SimpleNamespace(teacher=t, student=s, patterns=self.patterns, block_size=4, tokens=words)


def on_its_keys(teacher, student):
    """KL of the teacher's weights, made to sum to 1 on the keys that the student reads, from the student's."""
    read = student > 0
    t = teacher * read
    t = t / t.sum(-1, keepdim=True)
    return (t * (t.clamp(min=1e-9).log() - student.clamp(min=1e-9).log())).sum(-1).mean()


def texts(number):
    return {"input_ids": torch.randint(12, (4, 32), generator=torch.Generator().manual_seed(100 + number))}


def distillation(steps=40, seed=0, **more):
    """A Trainer whose records hold each term of the loss."""
    settings = TrainSettings(steps=steps, learning_rate=0.003, warmup=0.1, device="cpu")
    note = [lambda trainer, record: record.update(trainer.model.terms)]
    return Trainer(Distiller(seed=seed), texts, settings, callbacks=note, **more)
