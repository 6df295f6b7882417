"""What DICE to expect of objects like these: a predictor that knows its own error.

`fit` learns it from runs, `Predictor.before` tells it of targets and `Predictor.after` of answers,
`write_predictor` and `read_predictor` keep it as JSON.
"""

from promptseg.expectation.feature import Kind
from promptseg.expectation.file import read_predictor, write_predictor
from promptseg.expectation.learning import Examples, Learnt, learn
from promptseg.expectation.predictor import (
    Answered,
    Expected,
    Fitted,
    Lack,
    Predictor,
    fit,
    fit_way,
)
from promptseg.expectation.table import Way, planning_examples
from promptseg.expectation.validation import Error, Score, by_dataset, by_subject

__all__ = [
    "Answered",
    "Error",
    "Examples",
    "Expected",
    "Fitted",
    "Kind",
    "Lack",
    "Learnt",
    "Predictor",
    "Score",
    "Way",
    "by_dataset",
    "by_subject",
    "fit",
    "fit_way",
    "learn",
    "planning_examples",
    "read_predictor",
    "write_predictor",
]
