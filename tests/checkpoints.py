"""A checkpoint of two small tensors: what the tests of checkpoints read and write."""

import torch

CONFIG = {"model_type": "big_bird", "hidden_size": 8, "global_blocks": [0, -1], "name": "ß"}


def weights(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {"bert.a.weight": torch.randn(3, 4, generator=g), "bert.a.bias": torch.randn(3, generator=g)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def inside(folder):
    return sorted(path.name for path in folder.iterdir())
