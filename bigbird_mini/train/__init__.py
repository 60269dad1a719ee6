"""Training that survives: TrainSettings, then Trainer, whose ``step`` is all there is to it.

``saving`` keeps checkpoints, ``workers`` shares a step among several devices or machines.
"""

from .history import History
from .settings import TrainSettings
from .trainer import Diverged, Trainer, labelled

__all__ = ["Diverged", "History", "TrainSettings", "Trainer", "labelled"]
