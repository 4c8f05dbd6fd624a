"""Which column of which file is what: a mapping, from a YAML file or from options of the command line.

    sources:
      - files: [history/purchases-*.csv.gz]
        type: purchase
        customer: client_id
        time: sold_at
        map: {amount: total}

Attributes that are not in `map` are read from columns of their own name, where there are such. Everything that can be
wrong before a row is read is told here: unknown event type, attribute or column, a column of a type that cannot fit, a
required attribute that comes from nowhere.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import available_timezones

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine import limits
from engine.catalogue import Catalogue
from engine.config import checked
from engine.config_base import Name
from engine.config_schema import Attribute
from engine.errors import InvalidArgument

FORMATS: Final = ("csv", "parquet", "jsonl", "cloudevents")
Format = Literal["csv", "parquet", "jsonl", "cloudevents"]
TimeUnit = Literal["s", "ms", "us", "ns"]
_FORMAT_OF_SUFFIX: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_PACKED: Final = (".gz", ".bz2", ".zst")
_FITS: Final = {
    "number": "a number",
    "text": "a text or a whole number",
    "flag": "true or false",
}

_DELIMITERS: Final = ";\t|,"
_SAMPLE_TIME: Final = datetime(2026, 11, 24, 20, 30, 15, tzinfo=UTC)
"""Every part of it has two digits, so that none runs into the next."""

Column = Annotated[str, Field(min_length=1, max_length=limits.TEXT_BYTES_MAX)]


class Source(BaseModel):
    """Files of one shape and what their columns mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[str, ...] = Field(min_length=1)
    format: Format | None = None
    type: str | None = None
    type_column: Column | None = None
    customer: Column | None = None
    time: Column | None = None
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    time_zone: str = "UTC"
    id: Column | None = None
    id_source: Annotated[str, Field(min_length=1, max_length=limits.SOURCE_BYTES_MAX)] = "backfill"
    delimiter: Annotated[str, Field(pattern=r"^[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x7f]$")] | None = None
    map: dict[Name, Column] = Field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """All columns that are named."""
        named = {self.type_column, self.customer, self.time, self.id, *self.map.values()}
        return {column for column in named if column is not None}

    @model_validator(mode="after")
    def _whole(self) -> "Source":
        if self.format == "cloudevents":
            named = [name for name in ("type", "type_column", "customer", "time", "id") if getattr(self, name)]
            if named or self.map:
                raise ValueError(f"{', '.join(named or ['map'])}: a CloudEvent says that itself")
            return self
        if (self.type is None) == (self.type_column is None):
            raise ValueError("expected type, an event type, or type_column, the column that holds it: one of them")
        for name in ("customer", "time"):
            if getattr(self, name) is None:
                raise ValueError(f"{name}: expected the name of a column")
        if self.time_unit and self.time_format:
            raise ValueError("expected time_unit for numbers or time_format for texts, not both")
        if self.time_format and not _makes_times(self.time_format):
            raise ValueError(f"time_format: {self.time_format!r} makes no time, expected one like %d.%m.%Y %H:%M")
        if self.time_zone not in available_timezones():
            raise ValueError(f"time_zone: {self.time_zone!r} is no time zone, expected a name like Europe/Prague")
        return self


def _makes_times(form: str) -> bool:
    """Whether a format reads what it writes, at least the year of it.

    >>> [_makes_times(form) for form in ("%d.%m.%Y", "%Y-%m-%dT%H:%M:%S%.f%#z", "%s", "%H:%M", "%Q", "day")]
    [True, True, True, False, False, False]
    """
    try:
        # %#z can be read, and not be written.
        text = pl.Series([_SAMPLE_TIME]).dt.to_string(form.replace("%#z", "%z"))
        return bool((text.str.to_datetime(form, strict=False).dt.year() == _SAMPLE_TIME.year).all())
    except pl.exceptions.PolarsError:
        return False


class MappingFile(BaseModel):
    """A whole mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[Source, ...] = Field(min_length=1)


def load_mapping(path: Path) -> list[Source]:
    """Sources of a mapping file; their files lie relative to it. Raises ConfigError with one line a problem."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from error
    given, _ = checked(text, str(path), MappingFile, "a mapping that begins with 'sources:'")
    return [
        source.model_copy(update={"files": tuple(str(path.parent / file) for file in source.files)})
        for source in given.sources
    ]


@dataclass(frozen=True, slots=True)
class File:
    """One file to read."""

    path: Path
    format: Format
    source: Source


def files_of(sources: list[Source]) -> list[File]:
    """All files, patterns resolved, in order of their names. Raises InvalidArgument where there is none."""
    found = []
    for source in sources:
        for pattern in source.files:
            paths = [pattern] if Path(pattern).exists() else sorted(glob(pattern, recursive=True))  # noqa: PTH207
            if not paths:
                raise InvalidArgument(f"{pattern}: there is no such file")
            found += [File(Path(path), source.format or format_of(Path(path)), source) for path in paths]
    for file in found:
        if not file.path.is_file():
            raise InvalidArgument(f"{file.path}: expected a file")
        if file.format != "cloudevents" and (file.source.customer is None or file.source.time is None):
            raise InvalidArgument(f"{file.path}: expected the columns of customer and time")
    return found


def format_of(path: Path, otherwise: Format | None = None) -> Format:
    """What a file is by its name. Raises InvalidArgument if that does not say it and `otherwise` does not either."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    form = _FORMAT_OF_SUFFIX.get(suffixes[-1], otherwise) if suffixes else otherwise
    if form is None:
        raise InvalidArgument(f"{path}: its name does not say what it is: give the format, {', '.join(FORMATS)}")
    return form


# --- against catalogue and file -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file: checked, so that only single rows can be wrong."""

    file: File
    columns: tuple[str, ...]
    """Columns to read, each once."""
    attributes: Mapping[str, Mapping[str, str]]
    """By event type: attribute → column."""


def reading_of(file: File, found: Mapping[str, pl.DataType] | None, catalogue: Catalogue) -> Reading:
    """Check a file's columns against mapping and catalogue; None: it has neither rows nor columns, so all will do.

    Raises InvalidArgument, one line a problem.
    """
    source = file.source
    if file.format == "cloudevents":
        return Reading(file, (), {})
    if found is None:
        attributes_of_all = (name for attributes in catalogue.event_types.values() for name in attributes)
        found = dict.fromkeys((*source.columns, *attributes_of_all), pl.String())
    problems: list[str] = []
    there = ", ".join(found) or "none"
    named = {"customer": source.customer, "time": source.time, "id": source.id, "type_column": source.type_column}
    wanted = {f"column of {place}": column for place, column in named.items() if column is not None}
    wanted |= {f"column of {name}": column for name, column in source.map.items()}
    problems += [
        f"{what}: no column {column!r}; there are {there}" for what, column in wanted.items() if column not in found
    ]
    if problems and file.format == "csv":
        problems += _other_delimiter(found)
    types = list(catalogue.event_types) if source.type is None else [source.type]
    if source.type is not None and source.type not in catalogue.event_types:
        declared = ", ".join(catalogue.event_types) or "none"
        problems.append(f"type: no event type {source.type!r} is declared; there are {declared}")
        types = []
    declared_names = {name for event_type in types for name in catalogue.event_types[event_type]}
    for name in source.map:
        if types and name not in declared_names:
            there = ", ".join(sorted(declared_names)) or "none"
            problems.append(f"map: event type {source.type or 'none'!r} has no attribute {name!r}; there are {there}")
    attributes: dict[str, dict[str, str]] = {}
    for event_type in types:
        attributes[event_type] = {}
        for name, attribute in catalogue.event_types[event_type].items():
            column = source.map.get(name) or (name if name in found else None)
            if column is None or column not in found:
                if attribute.required and source.type is not None and column is None:
                    problems.append(
                        f"map: event type {event_type!r} requires attribute {name!r}: expected a column for it"
                    )
                continue
            attributes[event_type][name] = column
            problems += _misfits(f"attribute {name!r}", column, found[column], attribute)
    problems += key_misfits(source, found)
    if problems:
        raise InvalidArgument("\n".join(f"{file.path}: {problem}" for problem in dict.fromkeys(problems)))
    columns = [column for column in named.values() if column is not None]
    columns += [column for names in attributes.values() for column in names.values()]
    return Reading(file, tuple(dict.fromkeys(columns)), attributes)


def _other_delimiter(found: Iterable[str]) -> Iterator[str]:
    """What to do about the columns of a CSV that was taken for one column.

    >>> list(_other_delimiter(["who;at"])), list(_other_delimiter(["who"])), list(_other_delimiter(["who;at", "x"]))
    (["its first row is one column with ';' in it: give delimiter, or --delimiter, ';'"], [], [])
    """
    names = list(found)
    marks = [mark for mark in _DELIMITERS if len(names) == 1 and mark in names[0]]
    if marks:
        yield f"its first row is one column with {marks[0]!r} in it: give delimiter, or --delimiter, {marks[0]!r}"


def _misfits(what: str, column: str, dtype: pl.DataType, attribute: Attribute) -> Iterator[str]:
    fits = dtype == pl.String or dtype == pl.Null
    if attribute.type == "number":
        fits = fits or dtype.is_numeric()
    elif attribute.type == "flag":
        fits = fits or dtype == pl.Boolean or dtype.is_integer()
    else:
        fits = fits or is_key(dtype)
    if not fits:
        yield f"{what}: column {column!r} holds {dtype}, expected {_FITS[attribute.type]}"


def is_key(dtype: pl.DataType) -> bool:
    """Whether a column of that type can name something."""
    return dtype == pl.String or dtype.is_integer() or isinstance(dtype, (pl.Categorical, pl.Enum))


def key_misfits(source: Source, found: Mapping[str, pl.DataType], time_unit: str = "time_unit") -> Iterator[str]:
    """What is wrong with the types of the columns of customer, id, type and time.

    `time_unit` is how its user knows that setting.
    """
    for what, column in (("customer", source.customer), ("id", source.id), ("type_column", source.type_column)):
        dtype = found.get(column or "")
        if dtype is not None and not is_key(dtype):
            yield f"{what}: column {column!r} holds {dtype}, expected texts or whole numbers"
    dtype = found.get(source.time or "")
    if dtype is None or dtype == pl.String:
        return
    if dtype.is_numeric():
        if source.time_unit is None:
            yield f"time: column {source.time!r} holds {dtype}: give {time_unit}, one of s, ms, us, ns"
    elif not (isinstance(dtype, pl.Datetime) or dtype == pl.Date):
        yield f"time: column {source.time!r} holds {dtype}, expected a time, a date, a number or a text"
    elif source.time_unit or source.time_format:
        yield f"time: column {source.time!r} holds {dtype}: time_unit and time_format are for numbers and texts"
