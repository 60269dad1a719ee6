"""A small training from the command line: an encoder with dropout, in float64, that a test kills, resumes or shares.

Prints a line of JSON for each step, and from each process the micro-batches that it took. Alone, or by torchrun.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.train import Trainer, TrainSettings

CONFIG = BigBirdConfig(30, 24, 2, 4, 40, 100, block_size=4, num_random_blocks=1, initializer_range=0.2)


def model(seed=0):
    torch.manual_seed(seed)
    return BigBirdForMaskedLM(CONFIG).double()


def batches(number):
    """Documents of 38 tokens; some positions, more in one micro-batch than in the next, are to be guessed."""
    rng = torch.Generator().manual_seed(number)
    ids = torch.randint(1, 30, (2, 38), generator=rng)
    labels = ids.where(torch.rand(ids.shape, generator=rng) < (0.1 + 0.2 * (number % 4)), -100)
    return {"input_ids": ids, "labels": labels}


def settings(steps=12):
    return TrainSettings(steps, 1e-2, 0.25, clip=0.5, accumulation=4, device="cpu", checkpoint_every=3)


def say(found):
    sys.stdout.write(json.dumps(found) + "\n")  # in one piece: two processes write to one pipe
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--until", type=int, help="stop there, as if by hand")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rank, taken = int(os.environ.get("RANK", 0)), []

    def noted(number):
        taken.append(number)
        return batches(number)

    # By torchrun, each process starts with other weights: the first one's win.
    trainer = Trainer(
        model(rank),
        noted,
        settings(arguments.steps),
        folder=arguments.folder,
        callbacks=[lambda trainer, record: say(record)],
    )
    trainer.resume()
    trainer.run(arguments.until and arguments.until - trainer.steps_done, progress=False)
    say({"rank": rank, "taken": taken})


if __name__ == "__main__":
    sys.exit(main())
