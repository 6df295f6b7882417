"""How pages are made of templates: all is escaped, and a name that is missing is an error."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.report import compared, depends, frontier, sloppy, words

if TYPE_CHECKING:
    from jinja2 import Template

HERE = Path(__file__).parent  # with the templates of the parts that pages share


def _frontier(ranked: compared.Ranked, whole: compared.Compared) -> frontier.Frontier | None:
    """Draw quality against cost of what a user gets."""
    if not ranked.places[0].arm.is_deployable:
        return None
    return frontier.frontier(ranked.places, whole.name)


FILTERS: dict[str, Callable[..., Any]] = {
    "fraction": words.fraction,
    "distance": words.distance,
    "percent": words.percent,
    "count": words.count,
    "interval": words.interval,
    "marked": words.marked,
    "plural": words.plural,
    "subjects": words.subjects,
    "signed_difference": words.signed,
    "signed_span": compared.signed_span,
    "judged": compared.judged,
    "frontier": _frontier,
    "radius": sloppy.radius,
    "radius_span": sloppy.radius_span,
    "correlation": depends.correlation,
    "correlation_span": depends.span,
    "is_sure": depends.is_sure,
}


def template(path: Path, **filters: Callable[..., Any]) -> "Template":
    """Load a template, which has filters of its own and finds others beside the report's."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([path.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | filters
    return environment.get_template(path.name)
