"""The README of a mix: a dataset card that opens with one line of code."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from curate.mixing.formats import WrittenFile
from curate.records import Index, Mix, MixSettings, Target


def write_card(
    mix: Mix, *, index: Index, target: Target, settings: MixSettings, files: Sequence[WrittenFile]
) -> str:
    """Return the card: YAML that `datasets.load_dataset(folder)` reads, then the mix in words."""
    ending = files[0].path.rpartition(".")[2]
    rows = sum(file.rows for file in files)
    lines = "\n".join(
        f"| {escape(source)} | {tokens:,} | {tokens / mix.tokens:.1%} |"
        for source, tokens in mix.sources.items()
    )
    licence = f" (licence: {escape(target.licence)})" if target.licence else ""
    leaks = (
        f"{mix.decontaminated:,} documents that share {settings.ngram} words in a row with an item "
        "of the select or eval split, or hold one whole, were left out (`decontamination.jsonl`)."
        if settings.decontaminate
        else "Not done: items of the target may be in here."
    )
    copies = (
        f"{mix.duplicates:,} exact or near copies were left out (`duplicates.jsonl`)."
        if settings.dedup
        else "Not looked for."
    )
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.{ending}
task_categories:
- text-generation
tags:
- curate
---

# {mix.tokens:,} tokens for {escape(target.name)}

A training mix of {mix.tokens:,} tokens in {rows:,} rows, chosen from {len(index.shards):,} shards
by their alignment to the target {escape(target.name)}{licence}.

```python
from datasets import load_dataset

mix = load_dataset("path/to/this/folder", split="train")  # id, text, source, tokens
```

| source | tokens | share |
|---|---:|---:|
{lines}

- **Alignment of the mix** with the target: {mix.alignment:.3f} ({mix.low:.3f} to {mix.high:.3f}).
- **Forecast** against natural proportions: {mix.forecast.drop:+.3f} nats/token
  ({mix.forecast.low:+.3f} to {mix.forecast.high:+.3f}): {escape(mix.forecast.basis)}.
- **Decontamination**: {leaks}
- **Duplicates**: {copies}
- **Selection**: {settings.selection}, at most {settings.max_epochs:g} epochs of a shard, seed
  {settings.seed}; rows are shuffled.
- **Probe**: {escape(index.probe.name)}, revision {escape(index.probe.revision[:12])}; the tokens
  are those of {escape(settings.tokenizer or "its tokenizer")}, without special tokens.
- The licences of the sources hold for their rows; this card does not know them.

`provenance.parquet` names for every row the shard, the input file's digest, the record in it and
why it was chosen; `manifest.json` holds settings, counts and digests.
"""


def escape(text: str) -> str:
    """Return text from data as one harmless line of Markdown."""
    clean = "".join(
        c if unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", clean)
