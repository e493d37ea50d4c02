"""Load the file that a mix has for a trainer with the trainer's own code, in its environment.

Run: PYTHON tests/trainer_loads.py TRAINER FILE TOKENS; prints "read" at last.
"""

import importlib.util
import sys
from pathlib import Path


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def nanotron(path, tokens):
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
    from axolotl.utils.schemas.datasets import PretrainingDataset
    from datasets import load_dataset

    (given,) = yaml.safe_load(path.read_text())["pretraining_dataset"]
    found = PretrainingDataset(**given)
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


def main():
    name, path, tokens = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    globals()[name.replace("-", "_")](path, tokens)
    sys.stdout.write("read\n")


if __name__ == "__main__":
    main()
