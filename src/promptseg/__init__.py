"""Measure, compare and adapt promptable segmentation models on medical images.

The verbs of the command line, on the same nouns. Everything is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptseg.corpus import Corpus as Corpus
    from promptseg.corpus import open_corpus as open_corpus
    from promptseg.curation import Curation as Curation
    from promptseg.curation import curate as curate
    from promptseg.evaluation import evaluate as evaluate
    from promptseg.evaluation import evaluate_masks as evaluate_masks
    from promptseg.frame import frame_of as frame_of
    from promptseg.frame import load_attributes as load_attributes
    from promptseg.frame import load_run as load_run
    from promptseg.jitter import Jitter as Jitter
    from promptseg.metric import score as score
    from promptseg.model import Candidates as Candidates
    from promptseg.model import Segmenter as Segmenter
    from promptseg.model import Training as Training
    from promptseg.models import load_model as load_model
    from promptseg.plan import Plan as Plan
    from promptseg.predictions import open_predictions as open_predictions
    from promptseg.prompt import Box as Box
    from promptseg.prompt import BoxPoints as BoxPoints
    from promptseg.prompt import Everything as Everything
    from promptseg.prompt import Points as Points
    from promptseg.record import open_run as open_run
    from promptseg.record import start_run as start_run
    from promptseg.report import write_report as write_report
    from promptseg.run import describe_run as describe_run
    from promptseg.run import evaluate_corpus as evaluate_corpus
    from promptseg.run import evaluate_into as evaluate_into
    from promptseg.sample import Sample as Sample
    from promptseg.sample import Target as Target
    from promptseg.segmentation import segment as segment
    from promptseg.strategy import STRATEGIES as STRATEGIES
    from promptseg.subset import Choice as Choice
    from promptseg.subset import choose_subset as choose_subset

__version__ = "0.1.0.dev0"

_HOMES = {
    "corpus": ("Corpus", "open_corpus"),
    "curation": ("Curation", "curate"),
    "evaluation": ("evaluate", "evaluate_masks"),
    "frame": ("frame_of", "load_attributes", "load_run"),
    "jitter": ("Jitter",),
    "metric": ("score",),
    "model": ("Candidates", "Segmenter", "Training"),
    "models": ("load_model",),
    "plan": ("Plan",),
    "predictions": ("open_predictions",),
    "prompt": ("Box", "BoxPoints", "Everything", "Points"),
    "record": ("open_run", "start_run"),
    "report": ("write_report",),
    "run": ("describe_run", "evaluate_corpus", "evaluate_into"),
    "sample": ("Sample", "Target"),
    "segmentation": ("segment",),
    "strategy": ("STRATEGIES",),
    "subset": ("Choice", "choose_subset"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'promptseg' has no attribute {name!r}")
    return getattr(import_module(f"promptseg.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
