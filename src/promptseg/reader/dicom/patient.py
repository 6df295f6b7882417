"""What stands in a header where software has taken the patient's id away."""

from collections import defaultdict
from collections.abc import Iterable

from promptseg.reader.dicom.facts import ImageFacts

PLACEHOLDER = (
    "the patient's id looks like a placeholder that several studies share: different patients may "
    "count as one subject, unless --subject-pattern tells them apart by their paths"
)
_PADDING = " \t\0^_-.?*"
_PLACEHOLDERS = frozenset(
    {
        *("", "0", "anon", "anonymised", "anonymized", "anonymous", "n/a", "no id", "none"),
        *("patient", "test", "unknown", "xxx"),
    }
)


def is_placeholder(patient: str) -> bool:
    """Tell an id that names nobody: as a whole, never by a part of it."""
    return patient.strip(_PADDING).casefold() in _PLACEHOLDERS


def shared_placeholders(files: Iterable[ImageFacts]) -> set[str]:
    """List the placeholders that files of several studies have in common, or that may be so."""
    studies = defaultdict[str, set[str | None]](set)
    for file in files:
        if file.patient is not None and is_placeholder(file.patient):
            studies[file.patient].add(file.study_uid)
    return {patient for patient, uids in studies.items() if len(uids) > 1 or None in uids}
