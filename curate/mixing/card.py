"""The README of a mix: a dataset card that opens with one line of code."""

from __future__ import annotations

import re
from collections.abc import Sequence

from curate.frames import valued
from curate.harmless import without_controls
from curate.mixing.formats import WrittenFile
from curate.records import Index, Mix, Target
from curate.settings import MixSettings

_OPENING = """```python
from datasets import load_dataset

mix = load_dataset("path/to/this/folder", split="train")  # id, text, source, tokens
```"""
_NO_TEXT = "No text was copied: `selection.parquet` names the records, file by file."
_SHARDS = """```python
from streaming import StreamingDataset

mix = StreamingDataset(local="path/to/this/folder/data", split="train", batch_size=8)
```"""
_TOKENS = """The files hold tokens, each document followed by the token that ends a text; the
counts here are without it. The page on formats of curate says how they are laid out."""
_TRACED = """`provenance.parquet` names for every row the shard, the input file's digest, the
record in it and why it was chosen; """


def write_card(
    mix: Mix,
    *,
    index: Index,
    target: Target,
    settings: MixSettings,
    files: Sequence[WrittenFile],
    held: Sequence[WrittenFile] = (),
) -> str:
    """Return the card: YAML that `datasets.load_dataset(folder)` reads, then the mix in words."""
    ending = files[0].path.rpartition(".")[2] if files else ""
    with_text = ending in ("parquet", "jsonl")
    opening = _OPENING if with_text else _SHARDS if ending == "mds" else _TOKENS
    in_rows = f" in {sum(file.rows for file in files):,} rows" if files else ""
    lines = "\n".join(
        f"| {escape(source)} | {tokens:,} | {tokens / mix.tokens:.1%} |"
        for source, tokens in mix.sources.items()
    )
    licence = f" (licence: {escape(target.licence)})" if target.licence else ""
    said = " or in other words" if settings.paraphrases else ""
    leaks = (
        f"{mix.decontaminated:,} documents that share {settings.ngram} words in a row with an item "
        f"of the select or eval split, or hold one whole{said}, were left out "
        "(`decontamination.jsonl`)."
        if settings.decontaminate
        else "Not done: items of the target may be in here."
    )
    copies = (
        f"{mix.duplicates:,} exact or near copies were left out (`duplicates.jsonl`)."
        if settings.dedup
        else "Not looked for."
    )
    aside = (
        f"- **Held out**: {sum(file.tokens for file in held):,} tokens in the split `holdout`; no "
        "document of it is like one of the mix.\n"
        if held
        else ""
    )
    alignment = f"{valued(mix.alignment)} ({valued(mix.low)} to {valued(mix.high)})"
    drop, *ends = (
        valued(getattr(mix.forecast, name), signed=True) for name in ("drop", "low", "high")
    )
    split = f"\n  - split: holdout\n    path: data/holdout-*.{ending}" if held else ""
    configs = (
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f"    path: data/part-*.{ending}{split}\n"
    )
    return f"""---
{configs if with_text else ""}task_categories:
- text-generation
tags:
- curate
---

# {mix.tokens:,} tokens for {escape(target.name)}

A training mix of {mix.tokens:,} tokens{in_rows}, chosen from {len(index.shards):,} shards
by their alignment to the target {escape(target.name)}{licence}.

{opening if files else _NO_TEXT}

| source | tokens | share |
|---|---:|---:|
{lines}

- **Alignment of the mix** with the target: {alignment}.
- **Forecast** against natural proportions: {drop} nats/token
  ({ends[0]} to {ends[1]}): {escape(mix.forecast.basis)}.
- **Decontamination**: {leaks}
- **Duplicates**: {copies}
{aside}- **Selection**: {settings.selection}, at most {settings.max_epochs:g} epochs of a
  shard, seed {settings.seed}; rows are shuffled.
- **Probe**: {escape(index.probe.name)}, revision {escape(index.probe.revision[:12])}; the tokens
  are those of {escape(settings.tokenizer or "its tokenizer")}, without special tokens.
- The licences of the sources hold for their rows; this card does not know them.

{_TRACED if files else ""}`manifest.json` holds settings, counts and digests.
"""


def escape(text: str) -> str:
    """Return text from data as one harmless line of Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", without_controls(text))
