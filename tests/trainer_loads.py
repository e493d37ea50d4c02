"""Load what is made for another program with that program's own code, in its environment.

FILE is what a mix has for a trainer, or a data file for a reader; `wanted.json` beside it has the
texts and token ids that a reader has to find.

Run: PYTHON tests/trainer_loads.py NAME FILE TOKENS; prints "read" at last.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def nanotron(path, tokens):
    # Version 0.4 as published imports itself in a circle: its logging wants one name of its
    # configuration, for an annotation. With a stand-in for that name both load, and are its own.
    circle = ("nanotron.config", "nanotron.config.config")
    for name in circle:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[circle[1]].LoggingArgs = object
    import nanotron.logging  # noqa: F401

    for name in circle:
        del sys.modules[name]
    import yaml
    from dacite import from_dict
    from nanotron.config.config import DataArgs, TokenizerArgs
    from nanotron.dataloader import get_datasets

    given = yaml.safe_load(path.read_text())
    data = from_dict(DataArgs, given["data"])
    from_dict(TokenizerArgs, given["tokenizer"])
    rows = get_datasets(data.dataset.hf_dataset_or_datasets, [data.dataset.hf_dataset_splits])
    assert data.dataset.text_column_name in rows["train"].column_names
    assert len(rows["train"]) == 60


def olmo_core(path, tokens):
    found = load(path).build(64)
    found.prepare()
    assert len(found) == tokens // 64, (len(found), tokens)
    assert found[0]["input_ids"].shape == (64,)


def torchtitan(path, tokens):
    load(path)
    from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataset

    class Words:
        def encode(self, text, **_):
            return [len(word) for word in text.split()]

    found = HuggingFaceTextDataset("curate_mix", None, Words(), seq_len=32)
    given, labels = next(iter(found))
    assert given["input"].shape == labels.shape == (32,)


def axolotl(path, tokens):
    import yaml
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import PretrainingDataset
    from datasets import load_dataset

    given = yaml.safe_load(path.read_text())
    (checked,) = AxolotlInputConfig(**given).pretraining_dataset
    found = PretrainingDataset(**given["pretraining_dataset"][0])
    assert dict(checked)["data_files"] == found.data_files
    rows = load_dataset(found.path, data_files=found.data_files, split=found.split)
    assert found.text_column in rows.column_names and len(rows) == 60


def litgpt(path, tokens):
    import torch
    from litgpt.data import DataModule

    class Words:
        def encode(self, text, **_):
            return torch.tensor([len(word) for word in text.split()])

    found = load(path).MixData()
    assert isinstance(found, DataModule)
    found.connect(tokenizer=Words(), batch_size=2, max_seq_length=32)
    for loader in (found.train_dataloader(), found.val_dataloader()):
        assert next(iter(loader)).shape == (2, 33)


def wanted(path):
    return json.loads((path.parent / "wanted.json").read_text())


def datatrove(path, tokens):
    from datatrove.utils.dataset import DatatroveFolderDataset

    flat = [token for ids in wanted(path)["ids"] for token in ids]
    places = [place for ids in wanted(path)["ids"] for place in range(len(ids))]
    length = 64
    found = DatatroveFolderDataset(
        str(path.parent), seq_len=length - 1, filename_pattern="*.ds", shuffle=False,
        return_positions=True,
    )  # fmt: skip
    assert len(found) == tokens // length == len(flat) // length
    for number in range(len(found)):
        row, span = found[number], slice(number * length, (number + 1) * length)
        assert row["input_ids"].tolist() == flat[span]
        inside = [min(place, turn) for turn, place in enumerate(places[span])]
        assert row["positions"].tolist() == inside  # of its document, or of what is at hand of it


def megatron_core(path, tokens):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    for mapped in (True, False):
        found = IndexedDataset(str(path.with_suffix("")), mmap=mapped)
        assert [row.tolist() for row in found] == wanted(path)["ids"]
        assert found.document_indices.tolist() == list(range(len(found) + 1))
        assert int(found.sequence_lengths.sum()) == tokens


def mosaicml_streaming(path, tokens):
    from streaming import StreamingDataset

    rows = StreamingDataset(local=str(path.parent), batch_size=1, shuffle=False)
    assert [row["text"] for row in rows] == wanted(path)["texts"]
    assert sum(row["tokens"] + 1 for row in rows) == tokens


def main():
    name, path, tokens = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    globals()[name.replace("-", "_")](path, tokens)
    sys.stdout.write("read\n")


if __name__ == "__main__":
    main()
