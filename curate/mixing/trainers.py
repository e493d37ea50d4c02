"""A file beside a mix that starts training with it, for each trainer in its own language."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from curate.errors import USAGE, CurateError
from curate.mixing.binary import token_type

Trainer = Literal["transformers", "nanotron", "olmo-core", "torchtitan", "axolotl", "litgpt"]

NAMES: dict[str, str] = {
    "transformers": "train_transformers.py",
    "nanotron": "nanotron.yaml",
    "olmo-core": "olmo_core_mix.py",
    "torchtitan": "torchtitan_mix.py",
    "axolotl": "axolotl.yaml",
    "litgpt": "litgpt_mix.py",
}
"""The file of each trainer."""

READS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(NAMES, ("parquet", "jsonl")),
    "olmo-core": ("tokens",),
}
"""The formats of a mix that each trainer's file reads."""


def check_trainer(trainer: str, fmt: str) -> None:
    """Refuse a trainer that is not known, or that does not read this format.

    Raises:
        CurateError: what to write instead.
    """
    if trainer and trainer not in get_args(Trainer):
        known = ", ".join(get_args(Trainer))
        raise CurateError(f"trainer {trainer}: not known; use {known}", exit_code=USAGE)
    if trainer and fmt not in READS[trainer]:
        formats = " or ".join(f"--format {each}" for each in READS[trainer])
        raise CurateError(f"trainer {trainer}: reads no {fmt}; add {formats}", exit_code=USAGE)


def trainer_text(
    trainer: str, *, out: Path, fmt: str, files: Sequence[str], tokenizer: str, vocab: int, end: int
) -> str:
    """Return the file that starts a trainer with a mix.

    Args:
        trainer: one of `NAMES`.
        out: folder of the mix; files in YAML name it, those in Python find it by their own place.
        fmt: of the mix, one that `READS` names.
        files: of the mix, relative to it.
        tokenizer: a folder or hub id.
        vocab: its largest id + 1; decides how wide the tokens of tokenised files are.
        end: id that ends a text.
    """
    quoted = {
        "FOLDER": json.dumps(str(out)),
        "KIND": json.dumps("parquet" if fmt == "parquet" else "json"),
        "PATTERN": json.dumps(f"data/part-*.{fmt}"),
        "GLOB": json.dumps(str(out / "data" / f"part-*.{fmt}")),
        "TOKENIZER": json.dumps(tokenizer),
        "FILES": json.dumps(list(files)),
        "DTYPE": json.dumps(f"uint{8 * token_type(vocab).itemsize}"),
        "END": str(end),
        "VOCAB": str(vocab),
    }
    template = resources.files("curate.mixing") / "trainer_files" / f"{NAMES[trainer]}.template"
    text = template.read_text(encoding="utf-8")
    for name, value in quoted.items():
        text = text.replace(f"@{name}@", value)
    return text
