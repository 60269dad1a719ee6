"""The BigBird encoder and its heads: see BigBirdConfig, then BigBirdModel, then the heads."""

from .config import BigBirdConfig
from .encoder import BigBirdModel
from .heads import (
    BigBirdForMaskedLM,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
)
from .lengthen import lengthen
from .outputs import BigBirdOutput, MaskedLMOutput, QuestionAnsweringOutput

__all__ = [
    "BigBirdConfig",
    "BigBirdForMaskedLM",
    "BigBirdForQuestionAnswering",
    "BigBirdForSequenceClassification",
    "BigBirdForTokenClassification",
    "BigBirdModel",
    "BigBirdOutput",
    "MaskedLMOutput",
    "QuestionAnsweringOutput",
    "lengthen",
]
