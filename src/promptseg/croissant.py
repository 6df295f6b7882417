"""A Croissant 1.0 description of a corpus, so that catalogues and loaders know it.

What promptseg cannot know (url, creator, datePublished) is left for whoever publishes the corpus.
See https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import json
from typing import TYPE_CHECKING, Any

from promptseg.corpus import CorpusInfo
from promptseg.parquet import arrow_schema
from promptseg.rows import DropRow, TargetRow, image_schema
from promptseg.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_OWN_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "separator", "source", "subField", "transform"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _OWN_TERMS},
    "conformsTo": "dct:conformsTo",
}
_KINDS = {
    "images": "Images with what is known of them; null is unknown.",
    "targets": "Reference masks of single objects, as COCO compressed run lengths.",
    "drops": "Images and labels that were left out, with the reason.",
}


def write_croissant(store: Store, info: CorpusInfo) -> None:
    """Write `croissant.json` beside a corpus's `corpus.json`."""
    content = json.dumps(describe(info), indent=2, ensure_ascii=False) + "\n"
    store.write("croissant.json", content.encode())


def describe(info: CorpusInfo) -> dict[str, Any]:
    """Describe a corpus as Croissant JSON-LD."""
    schemas = {
        "images": image_schema(),
        "targets": arrow_schema(TargetRow),
        "drops": arrow_schema(DropRow),
    }
    citations = [dataset["citation"] for dataset in info.datasets if dataset.get("citation")]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": info.name,
        "description": _description(info),
        "license": _licence(info),
        "version": info.version,
        **({"citeAs": "; ".join(str(c) for c in citations)} if citations else {}),
        "distribution": [_file_set(kind) for kind in _KINDS],
        "recordSet": [_record_set(kind, schemas[kind]) for kind in _KINDS],
    }


def _description(info: CorpusInfo) -> str:
    tasks = ", ".join(info.tasks) or "none"
    return (
        f"{info.n_images} medical images with {info.n_targets} reference masks. Tasks: {tasks}. "
        f"Fingerprint: {info.fingerprint}. Made by promptseg curate."
    )


def _licence(info: CorpusInfo) -> str:
    licences = sorted({dataset.get("licence") or "unknown" for dataset in info.datasets})
    return "; ".join(licences) or "unknown"


def _file_set(kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{kind}-parts",
        "name": f"{kind}-parts",
        "description": _KINDS[kind],
        "encodingFormat": "application/x-parquet",
        "includes": f"{kind}/part-*.parquet",
    }


def _record_set(kind: str, schema: "pa.Schema") -> dict[str, Any]:
    key = {"images": "image_id", "targets": "target_id"}.get(kind)
    return {
        "@type": "cr:RecordSet",
        "@id": kind,
        "name": kind,
        "description": _KINDS[kind],
        **({"key": {"@id": f"{kind}/{key}"}} if key else {}),
        "field": [_field(kind, column) for column in schema],
    }


def _field(kind: str, column: "pa.Field") -> dict[str, Any]:
    """Describe one Parquet column as a field."""
    import pyarrow as pa

    name = f"{kind}/{column.name}"
    if column.name == "image":
        return _leaf(name, kind, column.name, "sc:ImageObject", "bytes")
    if pa.types.is_struct(column.type):
        parts = [_typed(f"{name}/{p.name}", kind, column.name, p.type, p.name) for p in column.type]
        return {"@type": "cr:Field", "@id": name, "name": name, "subField": parts}
    field = _typed(name, kind, column.name, column.type)
    if name == "targets/image_id":
        field["references"] = {"field": {"@id": "images/image_id"}}
    return field


def _typed(
    name: str, kind: str, column: str, data_type: "pa.DataType", part: str | None = None
) -> dict[str, Any]:
    import pyarrow as pa

    if pa.types.is_list(data_type):
        return {**_typed(name, kind, column, data_type.value_type, part), "repeated": True}
    known = {
        "string": "sc:Text",
        "double": "sc:Float",
        "int64": "sc:Integer",
        "int32": "sc:Integer",
    }
    return _leaf(name, kind, column, known[str(data_type)], part)


def _leaf(name: str, kind: str, column: str, data_type: str, part: str | None) -> dict[str, Any]:
    source: dict[str, Any] = {
        "fileSet": {"@id": f"{kind}-parts"},
        "extract": {"column": column},
    }
    if part is not None:
        source["transform"] = {"jsonPath": part}
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": data_type, "source": source}
