"""The house keeps its own rules: layers, sizes, dependencies, the public surface."""

import ast
import importlib.util
from pathlib import Path

import pytest

import promptseg

PACKAGE = Path(promptseg.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_CODE_LINES = 400, 60
# a module may import from layers above its own line, and from modules of its own line
LAYERS = (
    {
        *("division", "errors", "history", "isolated", "likeness", "mask", "memory", "pixels"),
        "stages",
    },
    {"ahead", "border", "duplicates", "parquet", "prompt", "sample", "weights", "metric"},
    {"strategy", "attributes", "clicks", "effort"},
    {"rows", "record", "model", "jitter", "released", "store"},
    {"corpus", "stored", "plan", "trainable", "frame"},
    {"corpus_writer", "inventory"},
    {
        "models",
        "tuned",
        "selection",
        "interval",
        "tolerance",
        "stats",
        "paired",
        "significance",
        "contrast",
        "factors",
        "gap",
        "volume",
        "expectation",
        "ranks",
        "response",
        "croissant",
        "reader",
        "bounds",
        "everything",
        "subset",
    },
    {"predictions"},
    {"scoring"},
    {"pending"},
    {"evaluation", "contamination", "curation", "segmentation", "contract", "probe", "promise"},
    {"run", "report"},
    {"look"},
    {"tuning"},
    {"bars"},
    {"terminal"},
    {"demo"},
    {"cli"},
    {"__main__"},
)


def _name(path: Path) -> str:
    """Name the module or folder that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imported(tree: ast.AST) -> set[str]:
    """List what of the package a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "promptseg":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            dotted = [alias.name.split(".") for alias in node.names]
            found |= {parts[1] for parts in dotted if parts[0] == "promptseg" and len(parts) > 1}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    """No cycle can arise where every import goes to an earlier layer, or along one."""
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    name = _name(path)
    if name == "__init__":
        return
    upward = {
        other
        for other in _imported(ast.parse(path.read_text()))
        if other != name and other != "__version__" and level[other] > level[name]
    }

    assert not upward


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_keep_their_size(path: Path):
    """At most 400 lines a module and 60 code lines a function."""
    text = path.read_text()
    long = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            size = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if size > MOST_CODE_LINES:
                long.append(f"{node.name}: {size}")

    assert text.count("\n") <= MOST_LINES
    assert not long


def test_what_would_break_transformers_is_not_installed():
    """Torchvision and timm are no dependencies, not even of a dependency."""
    assert importlib.util.find_spec("torchvision") is None
    assert importlib.util.find_spec("timm") is None


def test_the_public_names_are_there_and_documented():
    """What `__all__` lists can be had, and tells what it is."""
    for name in promptseg.__all__:
        assert getattr(promptseg, name) is not None
        assert name == "__version__" or getattr(promptseg, name).__doc__
    assert set(promptseg.__all__) <= set(dir(promptseg))
    assert not set(map(_name, MODULES)) & set(promptseg.__all__), "a module would hide it"


def test_an_unknown_public_name_is_an_attribute_error():
    """The lazy imports of the package root hide no typo."""
    with pytest.raises(AttributeError, match="evalute"):
        promptseg.evalute  # noqa: B018
