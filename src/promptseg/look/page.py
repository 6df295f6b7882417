"""The page of a first look: one file, in which every name is escaped."""

from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.report.template import template

if TYPE_CHECKING:
    from promptseg.look import First

_HERE = Path(__file__).parent
_MOST_NAMED = 14
_MOST_LISTED = 30


def write_page(first: "First") -> None:
    """Write the page where `first` says."""
    first.page.parent.mkdir(parents=True, exist_ok=True)
    html = template(_HERE / "look.html.jinja", share=_share).render(
        first=first, most_named=_MOST_NAMED, most_listed=_MOST_LISTED
    )
    first.page.write_text(html, encoding="utf-8")


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 1e-4 else "below 0.01 %"
