"""A file beside a mix that starts training with it, for each trainer in its own language."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    text = _TEXTS[trainer]
    for name, value in quoted.items():
        text = text.replace(f"@{name}@", value)
    return text


_TEXTS: dict[str, str] = {}

_TEXTS["transformers"] = '''"""Train a causal model on this mix with transformers and torch alone.

Run: python train_transformers.py --model gpt2            (goes on from its weights)
     python train_transformers.py --model gpt2 --scratch  (its shape, fresh weights)
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent


def blocks(tokenizer, length):
    """Yield token ids of `length`: documents one after the other, each with its end token."""
    rows = load_dataset(@KIND@, data_files=str(HERE / @PATTERN@), split="train", streaming=True)
    held = []
    for row in rows:  # the rows are shuffled already
        held += tokenizer(row["text"], add_special_tokens=False, verbose=False)["input_ids"]
        held.append(tokenizer.eos_token_id)
        while len(held) >= length:
            yield torch.tensor(held[:length])
            held = held[length:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--scratch", action="store_true", help="fresh weights")
    parser.add_argument("--tokenizer", default=@TOKENIZER@)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=0, help="0: once through the mix")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--out", default="trained")
    given = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    torch.manual_seed(0)
    if given.scratch:
        config = AutoConfig.from_pretrained(given.model)
        config.vocab_size = max(config.vocab_size, len(tokenizer))
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = AutoModelForCausalLM.from_pretrained(given.model)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.learning_rate)
    source, step = blocks(tokenizer, given.length), 0
    while not given.steps or step < given.steps:
        rows = [block for block, _ in zip(source, range(given.batch))]
        if not rows:
            break
        batch = torch.stack(rows).to(device)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        print(f"step {step} loss {loss.item():.4f}", flush=True)
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)


if __name__ == "__main__":
    main()
'''

_TEXTS["nanotron"] = """# The data of a nanotron run: `data` of its configuration (0.4).
# A version that asks for `data_stages` takes it as the `data` of a stage.
data:
  dataset:
    hf_dataset_or_datasets: @FOLDER@
    hf_dataset_splits: train
    text_column_name: text
  num_loading_workers: 1
  seed: 0
tokenizer:
  tokenizer_name_or_path: @TOKENIZER@
"""

_TEXTS[
    "olmo-core"
] = '''"""The data set of this mix for OLMo-core: call `build(length)` in a training script."""

from pathlib import Path

from olmo_core.data import NumpyDatasetDType, NumpyFSLDatasetConfig, TokenizerConfig

HERE = Path(__file__).resolve().parent
FILES = @FILES@


def config(sequence_length):
    """Return the configuration: raw token files, each document ended by the end token."""
    return NumpyFSLDatasetConfig(
        paths=[str(HERE / name) for name in FILES],
        sequence_length=sequence_length,
        dtype=NumpyDatasetDType(@DTYPE@),
        tokenizer=TokenizerConfig(
            vocab_size=@VOCAB@, eos_token_id=@END@, pad_token_id=@END@, identifier=@TOKENIZER@
        ),
    )


def build(sequence_length, work_dir="olmo_work"):
    """Return the data set."""
    found = config(sequence_length)
    found.work_dir = work_dir
    return found.build()
'''

_TEXTS["torchtitan"] = '''"""Makes torchtitan know this mix as the data set "curate_mix".

Import it in the module of your configuration; then set `dataset="curate_mix"` in the data
loader's Config (`HuggingFaceTextDataLoader.Config`).
"""

from functools import partial
from pathlib import Path

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS

HERE = Path(__file__).resolve().parent


def load(path):
    """Return the rows, streamed; they are shuffled already."""
    files = str(Path(path) / @PATTERN@)
    return load_dataset(@KIND@, data_files=files, split="train", streaming=True)


def text_of(row):
    """Return the text of a row."""
    return row["text"]


DATASETS["curate_mix"] = DatasetConfig(path=str(HERE), loader=load, sample_processor=text_of)
'''

_TEXTS[
    "axolotl"
] = """# Pre-training on this mix: set base_model, then run `axolotl train axolotl.yaml`.
base_model: gpt2
tokenizer_config: @TOKENIZER@
pretraining_dataset:
- path: @KIND@
  data_files: @GLOB@
  split: train
  text_column: text
  type: pretrain
max_steps: 1000
sequence_len: 1024
micro_batch_size: 8
gradient_accumulation_steps: 1
learning_rate: 0.0003
optimizer: adamw_torch
lr_scheduler: cosine
output_dir: ./trained
"""

_TEXTS["litgpt"] = '''"""This mix as a data module of LitGPT.

Run in this folder: litgpt pretrain pythia-14m --data litgpt_mix.MixData --tokenizer_dir FOLDER
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import load_dataset
from litgpt.data import DataModule
from torch.utils.data import DataLoader, IterableDataset

HERE = Path(__file__).resolve().parent


class Blocks(IterableDataset):
    """Token ids of one length: documents one after the other, each with its end token."""

    def __init__(self, files, tokenizer, length):
        self.files, self.tokenizer, self.length = files, tokenizer, length

    def __iter__(self):
        held = []
        for row in load_dataset(@KIND@, data_files=self.files, split="train", streaming=True):
            held += self.tokenizer.encode(row["text"], bos=False, eos=True).tolist()
            while len(held) >= self.length:
                yield torch.tensor(held[: self.length])
                held = held[self.length :]


@dataclass
class MixData(DataModule):
    """The mix; the held-out slice, where there is one, is the validation set."""

    seed: int = 0
    tokenizer: object = field(default=None, init=False, repr=False)
    batch_size: int = field(default=1, init=False, repr=False)
    length: int = field(default=1025, init=False, repr=False)

    def __post_init__(self):
        super().__init__()

    def connect(self, tokenizer=None, batch_size=1, max_seq_length=1024, **kwargs):
        self.tokenizer, self.batch_size = tokenizer, batch_size
        self.length = (max_seq_length or 1024) + 1  # the labels are the tokens that come next

    def train_dataloader(self):
        return self._loader(@PATTERN@)

    def val_dataloader(self):
        held = @PATTERN@.replace("part-", "holdout-")
        return self._loader(held if list(HERE.glob(held)) else @PATTERN@)

    def _loader(self, pattern):
        rows = Blocks(str(HERE / pattern), self.tokenizer, self.length)
        return DataLoader(rows, batch_size=self.batch_size)
'''
