"""Run by .ci/run in a new environment, after `pip install .` without extras: a model runs, nothing heavy is loaded."""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

import bigbird_mini
from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.data import DNATokenizer, genome

here = Path(bigbird_mini.__file__)
assert "site-packages" in here.parts, f"this is not the installed package: {here}"
tokens = DNATokenizer()
config = BigBirdConfig(tokens.vocab_size, 32, 2, 4, 64, max_position_embeddings=2000)
ids = tokens.encode(genome()[:1900])[None]
loss = BigBirdForMaskedLM(config)(ids, labels=ids).loss
assert torch.isfinite(loss)
heavy = {"matplotlib", "ipywidgets", "anywidget", "nbformat", "scipy", "transformers"} & set(sys.modules)
assert not heavy, f"loaded without need: {heavy}"
for file in (
    "py.typed",
    "data/ecoli_w3110.2bit",
    "data/PROVENANCE.md",
    "course/manifest.json",
    "course/predict.js",
    "viz/pattern.js",
):
    assert (here.parent / file).exists(), f"{file} is missing from the package"
print(f"bigbird-mini {version('bigbird-mini')} with torch {torch.__version__}: loss {loss.item():.3f} on 1,900 bases")
