"""The BigBird encoder and its heads: see BigBirdConfig, then BigBirdModel, then the heads."""

from .config import BigBirdConfig
from .encoder import BigBirdModel, BigBirdOutput
from .heads import BigBirdForMaskedLM

__all__ = ["BigBirdConfig", "BigBirdForMaskedLM", "BigBirdModel", "BigBirdOutput"]
