"""One reader for everything that rows come in: files, data frames, data sets, lists, the Hugging Face Hub."""

from __future__ import annotations

import io
import json
import math
import stat
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, first_line
from rlvr_lite.records import read_text, text_lines

__all__ = ["SUFFIXES", "TEXT_COLUMNS", "Rows", "from_hub", "is_source", "read"]

Rows = list[dict[str, Any]]
#: Columns that a CSV file's reader must not turn into numbers: ``007`` and ``1e3`` are answers as they are written.
TEXT_COLUMNS = ("problem", "question", "prompt", "answer", "id")
_GAPS = ("", "NA", "NaN", "nan", "null", "None")  # in a table's other columns
_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
_NAMES |= {"test": "test", "eval": "test", "ood": "ood"}


def is_source(value: Any) -> bool:
    """Whether a value is rows, or splits of rows, in memory."""
    if isinstance(value, str | Path):
        return False
    return hasattr(value, "column_names") or hasattr(value, "to_dict") or isinstance(value, Mapping | Sequence)


def read(source: Any, name: str, text_columns: Iterable[str] = ()) -> dict[str, Rows]:
    """The rows of a source by split; of one without splits all of them under "".

    Args:
        source: the path of a file or of a folder that ``save_to_disk`` wrote; a ``datasets.Dataset`` or
            ``DatasetDict``; a pandas ``DataFrame``; a list of mappings; or a mapping from splits to any of these.
        name: for messages.
        text_columns: further columns of a CSV file that are texts.

    Raises:
        UserError: the source is missing, empty, damaged (names the line), or of another kind.
    """
    if isinstance(source, str | Path):
        return _by_split(_from_path(Path(source), [*TEXT_COLUMNS, *text_columns]), name)
    return _by_split(source, name)


def _by_split(source: Any, name: str) -> dict[str, Rows]:
    if not isinstance(source, Mapping):
        return {"": _rows(source, name)}
    found: dict[str, Rows] = {}
    for split, part in source.items():
        known = _NAMES.get(str(split))
        if known is None:
            raise UserError(
                f"{name} has a split {str(split)!r}, which is none of train, validation, test and ood: choose one with "
                "the task option split, or pass it alone"
            )
        if known in found:
            raise UserError(f"{name} has two splits for {known}: leave one out")
        found[known] = _rows(part, f"{name}, split {split}")
    if not found:
        raise UserError(f"{name} is empty: give at least one row with a problem")
    return found


def _rows(source: Any, name: str) -> Rows:
    """Rows in memory, as dictionaries of their own."""
    if hasattr(source, "column_names"):
        if not hasattr(source, "__len__"):
            raise UserError(
                f"{name} is streamed, so that it can be neither split nor shuffled: pass list(data.take(2000)), or "
                "load it without streaming"
            )
        _refuse_twice(source.column_names, name)
        rows: Iterable[Any] = source.with_format(None) if hasattr(source, "with_format") else source
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):
        _refuse_twice(list(source.columns), name)
        rows = [{k: None if _missing(v) else v for k, v in row.items()} for row in source.to_dict("records")]
    elif isinstance(source, Sequence) and not isinstance(source, str | bytes):
        rows = source
    else:
        raise UserError(
            f"{name} is a {type(source).__name__}, which holds no rows: pass a list of dicts, a pandas DataFrame, a "
            "datasets.Dataset or the path of a file"
        )
    found = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise UserError(
                f"{name}, row {number} is a {type(row).__name__}, not a mapping from columns to values: write "
                "{'problem': ..., 'answer': ...}"
            )
        found.append({str(column): value for column, value in row.items()})
    if not found:
        raise UserError(f"{name} is empty: give at least one row with a problem")
    return found


def _missing(value: Any) -> bool:
    """Whether pandas means a gap."""
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))


def _refuse_twice(columns: Sequence[Any], name: str) -> None:
    names = list(map(str, columns))
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise UserError(f"{name} has the column {twice} twice: rename or delete one")


# ---- files -------------------------------------------------------------------------------------------------------


def _from_path(path: Path, text_columns: Sequence[str]) -> Any:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # too long a name, a loop of links, a NUL in it
        raise UserError(f"cannot read {str(path)[:200]!r}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        return _from_folder(path)
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise UserError(f"{path} is a pipe or a device, not a file: write its rows to a file first")
    try:
        return _READERS[path.suffix.lower()](path, text_columns)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (RecursionError, MemoryError) as error:
        raise UserError(f"{path} is nested too deeply or too large to be read: cut it down") from error
    except (ValueError, OverflowError) as error:  # what pandas, pyarrow and csv raise derives from these
        raise UserError(f"{path} cannot be read ({str(error)[:200]}): mend the file") from error


def _from_folder(path: Path) -> Any:
    if not any((path / mark).is_file() for mark in ("dataset_dict.json", "dataset_info.json")):
        raise UserError(f"{path} is a folder, not a file: name one of its files")
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # whatever a damaged folder makes pyarrow raise
        raise UserError(f"{path} is a damaged data set ({type(error).__name__}): save it again") from error


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Malformed(f"has {next(n for n in names if names.count(n) > 1)!r} twice")
    return found


def _no_constant(text: str) -> Any:
    raise _Malformed(f"holds {text}, which is no number")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Malformed(f"holds {text[:40]}, which is too large a number")
    return value


class _Malformed(Exception):
    """What JSON allows and a table does not."""


def _json(text: str, where: str) -> Any:
    """One JSON text; everything wrong with it as one line that begins with ``where``."""
    try:
        value = json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant, parse_float=_number)
        if "\\u" in text:  # an escape may name half of a character, which no tokenizer can encode
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg}): mend or delete it") from error
    except _Malformed as error:
        raise UserError(f"{where} {error}: mend or delete it") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half a character (a lone surrogate): mend or delete it") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: mend or delete it") from error
    except ValueError as error:  # a whole number of more than 4,300 digits
        raise UserError(f"{where} holds too long a number: write it as text, or delete it") from error
    return value


def _from_jsonl(path: Path, text_columns: Sequence[str]) -> Rows:
    return _json_lines(text_lines(path), path)


def _json_lines(lines: Iterable[tuple[int, str]], path: Path) -> Rows:
    rows = []
    for number, line in lines:
        if not line.strip():
            continue
        row = _json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is not a JSON object: write {{...}} with named columns")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} is empty: give at least one row with a problem")
    return rows


def _from_json(path: Path, text_columns: Sequence[str]) -> Any:
    """A list of objects, or an object of such lists by split; JSON lines under this suffix are read too."""
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path} is empty: give at least one row with a problem")
    first = text.lstrip().partition("\n")[0].rstrip()
    if first[0] == "{" and first[-1] == "}":
        return _json_lines(enumerate(text.split("\n"), start=1), path)
    found = _json(text, str(path))
    if isinstance(found, list) or (isinstance(found, dict) and all(isinstance(part, list) for part in found.values())):
        return found
    raise UserError(
        f"{path} is not a list of objects: write [{{...}}, {{...}}] with named columns, or one object a line"
    )


def _from_table(separator: str) -> Callable[[Path, Sequence[str]], Any]:
    def reader(path: Path, text_columns: Sequence[str]) -> Any:
        import pandas

        text = "".join(line for _, line in text_lines(path))
        if not text.strip():
            raise UserError(f"{path} is empty: give at least one row with a problem")
        head = pandas.read_csv(io.StringIO(text), sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
        columns = [name.strip() for name in head.iloc[0]]
        _refuse_twice(columns, str(path))
        texts = {column: str for column in columns if column in text_columns}
        gaps = {column: list(_GAPS) for column in columns if column not in texts}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # a row with more cells than there are columns
            try:
                frame = pandas.read_csv(
                    io.StringIO(text),
                    sep=separator,
                    header=0,
                    names=columns,
                    dtype=texts,
                    keep_default_na=False,
                    na_values=gaps,
                    index_col=False,
                )
            except pandas.errors.ParserWarning as error:
                raise UserError(
                    f"{path} has rows with more cells than columns: put texts with commas in quotes"
                ) from error
        return frame

    return reader


def _from_parquet(path: Path, text_columns: Sequence[str]) -> Any:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    _refuse_twice(table.column_names, str(path))
    return table.to_pylist()


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Any]] = {
    ".jsonl": _from_jsonl,
    ".ndjson": _from_jsonl,
    ".json": _from_json,
    ".csv": _from_table(","),
    ".tsv": _from_table("\t"),
    ".parquet": _from_parquet,
}
#: Of the files that can be read.
SUFFIXES = tuple(_READERS)


# ---- the Hub -----------------------------------------------------------------------------------------------------


def from_hub(
    repository: str,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    *,
    or_else: str = "",
) -> Any:
    """A data set of the Hugging Face Hub: a ``Dataset`` with ``split``, else a ``DatasetDict``.

    Args:
        repository: ``owner/name``.
        config: of the data set, where it has several.
        split: of the data set.
        revision: branch, tag or commit.
        or_else: what else can be done where the Hub cannot be reached.

    Raises:
        UserError: there is no such data set or configuration, or no network; said at once.
    """
    import datasets
    import huggingface_hub

    try:
        # without network this fails at once, where load_dataset would try again for half a minute
        huggingface_hub.snapshot_download(
            repository, repo_type="dataset", allow_patterns="README.md", revision=revision
        )
        return datasets.load_dataset(repository, config, split=split, revision=revision)
    except Exception as error:  # datasets passes on whatever its HTTP client raises
        said = first_line(error)[:150]
        if "onfig" in said and "missing" in said:
            raise UserError(
                f"{repository} has several configurations: name one with the task option config ({error})"
            ) from error
        if isinstance(error, ValueError) and ("split" in said.lower() or "config" in said.lower()):
            raise UserError(f"cannot load {repository}: {said}") from error
        raise UserError(
            f"cannot load {repository} ({type(error).__name__}): connect to the Hugging Face Hub{or_else}"
        ) from error
