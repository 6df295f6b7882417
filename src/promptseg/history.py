"""What runs of earlier schemas lack, and how they are read all the same."""

from typing import Any

# columns of records that older runs lack: the version that brought them -> their names
BROUGHT = {
    2: ("n_survivors", "n_unmatched", "n_matches"),
    3: ("volume", "predicted_px", "reference_px"),
}
_SETTINGS_OF_3: dict[str, Any] = {"datasets": [], "trained_on": {}, "held_out": {}}
_LATER: dict[str, Any] = {"backends": {}}  # came without a new schema: every run before had torch


def lacking(version: int) -> list[str]:
    """List the columns of records that came after a version of the schema."""
    return [name for since, names in BROUGHT.items() if since > version for name in names]


def settings_of(content: dict[str, Any], version: int) -> dict[str, Any]:
    """Read the settings of a run of an earlier schema as one of today would say them."""
    told = _from_version_1(content) if version == 1 else content
    return {**_LATER, **(_SETTINGS_OF_3 if version < 3 else {}), **told}


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Read the settings of a run of schema 1: one seed, no jitter, all of the corpus."""
    return {
        **{name: value for name, value in content.items() if name != "seed"},
        "seeds": [content["seed"]],
        "jitter": [],
        "everything": {},
        "subset": {},
        "max_targets": None,
        "of_images": content["n_images"],
        "n_targets": None,
        "of_targets": None,
        "batch_size": None,
    }
