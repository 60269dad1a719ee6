"""bigbird_mini: attention patterns you can hold, and the block-sparse BigBird encoder that runs on them.

A pattern is built, drawn, measured and run: see BlockPattern, then attention, then BigBirdModel.
"""

from .attention import attention
from .model import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdModel,
)
from .pattern import BlockPattern

__version__ = "0.1.0"
__all__ = [
    "BigBirdConfig",
    "BigBirdForMaskedLM",
    "BigBirdForQuestionAnswering",
    "BigBirdForSequenceClassification",
    "BigBirdForTokenClassification",
    "BigBirdModel",
    "BlockPattern",
    "attention",
]
