"""What every script of the study is asked: which runs to read, and where to write.

A path is a run, or a corpus. Of corpora the runs are made first, under `OUT/runs`, with the options
of `runs.py`; give them again and they are only read.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import runs

from promptseg import load_attributes, load_run
from promptseg.errors import PromptsegError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line of a script, with the runs there."""

    runs: tuple[Path, ...]
    out: Path
    told: argparse.Namespace

    def records(self) -> pl.DataFrame:
        """Read all records."""
        return load_run(*self.runs)

    def attributes(self) -> pl.DataFrame:
        """Read what the targets look like."""
        return load_attributes(*self.runs)


def ask(
    says: str | None,
    kinds: Sequence[str],
    arguments: Sequence[str] | None = None,
    *,
    add: Callable[[argparse.ArgumentParser], None] | None = None,
) -> Asked:
    """Read a command line, and make the runs that a script needs.

    Parameters
    ----------
    says
        The script's docstring, for its help.
    kinds
        Of `runs.py`; none: the script takes runs alone.
    add
        Adds the script's own options.
    """
    parser = argparse.ArgumentParser(
        description=says, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, nargs="+", help="runs or corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is written")
    runs.add_options(parser)
    if add is not None:
        add(parser)
    told = parser.parse_args(arguments)
    corpora = [path for path in told.path if (path / "corpus.json").is_file()]
    if corpora and not kinds:
        raise SystemExit(f"{corpora[0]} is a corpus: this script reads runs")
    there = [path for path in told.path if path not in corpora]
    if corpora:
        told.make = list(kinds)
        there += runs.make(corpora, told, told.out / "runs")
    told.out.mkdir(parents=True, exist_ok=True)
    return Asked(runs=tuple(there), out=told.out, told=told)


def exact(records: pl.DataFrame) -> pl.DataFrame:
    """Keep prompts without jitter."""
    return records.filter(pl.col("jitter_mode").is_null())


def plainly(main: Callable[[], None]) -> None:
    """Run a script; what the user can mend is one line, and no traceback."""
    try:
        main()
    except PromptsegError as error:
        raise SystemExit(str(error)) from error
