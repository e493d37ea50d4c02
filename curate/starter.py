"""`curate init`: a commented curate.toml for the files that a folder holds."""

from __future__ import annotations

import re
from collections import Counter
from glob import escape
from pathlib import Path

from curate.corpus.containers import BrokenFileError
from curate.corpus.fields import parse_template
from curate.corpus.formats import detect_format
from curate.corpus.guess import first_record, guess_of, guess_text
from curate.corpus.rows import field_names
from curate.errors import CurateError
from curate.report.numbers import format_number
from curate.report.repeat import toml_value
from curate.store.publish import publish_bytes

_KNOWN = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.xz", ".parquet", ".csv",
          ".tsv", ".txt", ".md")  # fmt: skip

_SELECT = ("select", "valid", "validation", "dev", "questions")
_EVAL = ("eval", "test", "heldout")

_LABELS = {"id", "_id", "uuid", "source", "split"}  # fields that are no part of an item

_TEMPLATE = """\
# Settings of curate for this folder. Every line may be left out; options override it.

[corpus]
inputs = {inputs}  # files, folders, globs, or "hf:org/name"
text = {text}  # the field with the text, or a template: "{{question}}\\n{{answer}}"
shard_tokens = "1M"  # a shard is what is embedded, ranked and mixed
# max_rejected = "0.1%"  # share of bad documents above which the exit code is 3

[embed]
# probe = "builtin"  # for real work a stronger one: "gpt2", a folder, a .gguf file
# batches = 4  # sub-batches of disjoint documents: they give the intervals
# batch_tokens = 16384  # of each

[target]
{target}
# data_dir = ""  # folder of named targets where the hub is out of reach, or CURATE_DATA_DIR

[rank]
# method = "ngram-lm"  # or lexical, task2vec, ngram, …: curate rank --help

[mix]
budget = {budget}  # tokens, exactly: "250k", "100M", "1.5B"
# selection = "auto"  # what trains best; or temperature, match, top
# max_epochs = 1.0  # times a shard may be repeated

[verify]
# size = "1M"  # tiny, 1M, 3M, 15M, 50M, 124M parameters
# seeds = 3
# tokens = 0  # of each run: "1M"; 0 takes as many as the mix has, 2M at most
"""


def write_starter(folder: Path, *, force: bool = False) -> str:
    """Write `curate.toml` into a folder; return what was found and written, for a person.

    Args:
        folder: looked at two levels deep for files that the reader knows.
        force: replace a `curate.toml` that is there.

    Raises:
        CurateError: there is one already and `force` is off.
    """
    path = folder / "curate.toml"
    if path.exists() and not force:
        raise CurateError(f"{path}: already there; edit it, or replace it with --force")
    found, held = _data_files(folder)
    inputs = _globs(found) or ["corpus/"]
    text = _text_field([folder / path for path in found])
    filled = _TEMPLATE.format(
        inputs=toml_value(inputs),
        text=toml_value(text),
        target=_target_line(folder, held),
        budget=toml_value("1M"),
    )
    publish_bytes(path, filled.encode("utf-8"))
    seen = (
        format_number(len(found), "data file")
        if found
        else "no data file yet: name yours in [corpus]"
    )
    named = "" if any(map(_is_select, held)) else " --target NAME|FILE"
    lacking = _lacking(folder, found, text)
    return f"curate.toml written: {seen}, text in {text!r}. {lacking}Next: curate rank{named}"


def _data_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the data, and the files that by their name are a target's splits."""
    candidates = [*folder.glob("*"), *folder.glob("*/*")]
    visible = (path for path in candidates if not path.name.startswith(".") and path.is_file())
    inside = (path.relative_to(folder) for path in visible if path.name.endswith(_KNOWN))
    documents = {"README.md", "CHANGELOG.md", "LICENSE.txt", "requirements.txt"}
    shown = [p for p in inside if p.name not in documents and not p.parts[0].startswith(".")]
    # a folder with a manifest is a mix that curate wrote, not a corpus
    data = sorted(p for p in shown if not (folder / p.parent / "manifest.json").is_file())
    held = [p for p in data if _is_select(p) or _stem(p) in _EVAL]
    for path in data:
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError:
            raise CurateError(f"{path}: its name is not UTF-8; rename it") from None
    return [p for p in data if p not in held], held


def _is_select(path: Path) -> bool:
    """Say whether a file is a target's by its name: valid.jsonl, my_questions.jsonl."""
    return _stem(path) in _SELECT or _stem(path).endswith(("_questions", "-questions"))


def _stem(path: Path) -> str:
    return path.name.removesuffix(_ending(path)).lower()


def _target_line(folder: Path, held: list[Path]) -> str:
    """Return the lines that name the target: splits that were found, or a known name.

    An item of other fields than `text` is read as all of them, in their order.
    """
    select = [p for p in held if _is_select(p)]
    after = [p for p in held if _stem(p) in _EVAL and select and p.parent == select[0].parent]
    if not select:
        return 'name = "proofnet"  # curate targets lists the known ones; or a file'
    splits = ",".join(str(p) for p in [select[0], *after[:1]])
    names = (_stem(select[0]), select[0].parent.name, "target")  # `valid.jsonl` says not of what
    called = next(
        re.sub(r"[^\w.-]+", "-", name) for name in names if name not in {"", "data", *_SELECT}
    )
    given = toml_value(f"{called}={splits}")
    name = f"name = {given}  # select split, eval split; or curate targets"
    record = first_record(folder / select[0])
    text = guess_of(record)
    strings = [field for field, value in record.items() if isinstance(value, str)]
    asked = [field for field in strings if field not in _LABELS and not {*field} & {*"{}"}]
    if "text" in strings or not (asked or "{" in text):
        return name
    read = text if "." in text else " ".join(f"{{{field}}}" for field in asked)
    return f"{name}\ntemplate = {toml_value(read)}  # how an item reads"


def _ending(path: Path) -> str:
    return max((known for known in _KNOWN if path.name.endswith(known)), key=len)


def _globs(files: list[Path]) -> list[str]:
    """Return the file itself where it is alone with its ending in its folder, else a glob."""
    kinds = Counter((path.parent, _ending(path)) for path in files)
    return [
        str(next(path for path in files if (path.parent, _ending(path)) == kind))
        if count == 1
        else str(Path(escape(str(kind[0])), f"*{kind[1]}"))
        for kind, count in kinds.items()
    ]


def _text_field(files: list[Path]) -> str:
    """Return the field or template that most files have their text in."""
    votes = Counter(filter(None, map(guess_text, files)))
    return max(votes, key=lambda name: (votes[name], name == "text")) if votes else "text"


def _field_names(path: Path) -> tuple[str, ...]:
    """Return the fields of a file's records; none where it is a text or cannot be read."""
    try:
        return field_names(path, detect_format(path)) or ()
    except (BrokenFileError, OSError):
        return ()


def _lacking(folder: Path, files: list[Path], text: str) -> str:
    """Return a sentence on the files that have other fields than the one with the text."""
    known = {path: names for path in files if (names := _field_names(folder / path))}
    fields = parse_template(text).fields
    others = [path for path, names in known.items() if not {*fields} <= {*names}]
    if not others:
        return ""
    return (
        f"{len(others)} of {format_number(len(known), 'file')} "
        f"{'has' if len(others) == 1 else 'have'} no such field ({others[0]} has "
        f"{', '.join(known[others[0]][:8])}): give all of them one name for it, or take them out. "
    )
