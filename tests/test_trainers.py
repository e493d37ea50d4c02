"""A file beside a mix that starts a trainer."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import transformers
import yaml

from curate.errors import CurateError
from curate.mixing.binary import TokenSpec, write_megatron, write_tokens
from curate.mixing.formats import ROW_SCHEMA
from curate.mixing.streaming import write_mds, write_mds_index
from curate.mixing.tokenizer import token_spec
from curate.mixing.trainers import NAMES, READS, check_trainer, trainer_text
from curate.records import ProbeInfo
from curate.task2vec.probe import BUILTIN
from curate.task2vec.tokenizer import load_encode

INFO = ProbeInfo(name="builtin", revision="", tokenizer_digest="", n_parameters=0, vocab=0)


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """A folder as build-mix leaves it, with rows as parquet and as tokens."""
    folder = tmp_path_factory.mktemp("mix")
    encode, _ = load_encode("builtin", INFO)
    texts = [f"the {n} quick foxes jump over {n} lazy dogs. " * 20 for n in range(60)]
    tokens = [len(ids) for ids in encode(texts)]
    columns = {"id": [str(n) for n in range(60)], "text": texts, "source": ["s"] * 60}
    rows = pa.table(columns | {"tokens": tokens}, schema=ROW_SCHEMA)
    (folder / "data").mkdir()
    pq.write_table(rows, folder / "data" / "part-00000.parquet")
    spec: TokenSpec = token_spec("builtin", INFO)
    write_tokens(folder / "data" / "part-00000.ds", rows, spec)
    card = "configs:\n- config_name: default\n  data_files: data/part-*.parquet"
    (folder / "README.md").write_text(f"---\n{card}\n---\n")  # as every mix has
    for trainer, name in NAMES.items():
        fmt = READS[trainer][0]
        ending = "ds" if fmt == "tokens" else fmt
        text = trainer_text(
            trainer, out=folder, fmt=fmt, files=[f"data/part-00000.{ending}"],
            tokenizer=str(BUILTIN), vocab=spec.vocab, end=spec.end,
        )  # fmt: skip
        (folder / name).write_text(text)
    return folder, sum(tokens) + len(tokens), spec


@pytest.mark.parametrize("write", [write_tokens, write_megatron])
def test_ids_with_gaps_are_written_in_the_width_of_the_largest(tmp_path, write):
    """Twelve kinds, of which one is number 70,000: 16 bits made 4,464 of it."""
    kinds = {**{f"w{n}": n for n in range(10)}, "</s>": 10, "far": 70_000}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(kinds, unk_token="w0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    fast.save_pretrained(tmp_path / "gaps")
    spec = token_spec(str(tmp_path / "gaps"), INFO)
    columns = {"id": ["0"], "text": ["w1 far"], "source": ["s"], "tokens": [2]}
    path = tmp_path / ("part.ds" if write is write_tokens else "part.bin")
    write(path, pa.table(columns, schema=ROW_SCHEMA), spec)
    assert np.fromfile(path, "<u4").tolist() == [1, 70_000, 10]


@pytest.mark.parametrize("trainer", NAMES)
def test_every_file_is_whole_and_names_files_that_are_there(mix, trainer):
    folder, _, spec = mix
    text = (folder / NAMES[trainer]).read_text()
    assert "@" not in text.replace("@dataclass", "")
    if NAMES[trainer].endswith(".yaml"):
        assert str(folder) in text and yaml.safe_load(text)
    else:
        ast.parse(text)
        assert "__file__" in text
        pattern = "data/part-00000.ds" if trainer == "olmo-core" else "data/part-*.parquet"
        assert pattern in text and list(folder.glob(pattern))
    if trainer == "olmo-core":
        assert '"uint16"' in text and f"eos_token_id={spec.end}" in text


@pytest.mark.parametrize(
    ("trainer", "fmt", "message"),
    [
        ("pencil", "parquet", "not known; use transformers, nanotron, olmo-core"),
        ("olmo-core", "parquet", "reads no parquet; add --format tokens"),
        ("axolotl", "mds", "reads no mds; add --format parquet or --format jsonl"),
    ],
)
def test_a_trainer_that_cannot_read_the_format_is_refused_in_one_line(trainer, fmt, message):
    with pytest.raises(CurateError, match=message) as error:
        check_trainer(trainer, fmt)
    assert error.value.exit_code == 2
    check_trainer("", "mds")
    check_trainer("litgpt", "jsonl")


@pytest.mark.slow
def test_the_file_for_transformers_trains(mix, tmp_path):
    from transformers import LlamaConfig

    folder, _, spec = mix
    LlamaConfig(
        vocab_size=spec.vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    ).save_pretrained(tmp_path / "tiny")  # fmt: skip
    command = [
        sys.executable, str(folder / NAMES["transformers"]), "--model", str(tmp_path / "tiny"),
        "--scratch", "--length", "64", "--batch", "4", "--steps", "12", "--learning-rate", "0.01",
        "--out", str(tmp_path / "trained"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if "loss" in line]
    assert len(losses) == 12 and losses[-1] < losses[0] - 1
    assert (tmp_path / "trained" / "model.safetensors").is_file()


def loads(name, path, tokens, folder):
    """Have a file read by the program that it is for."""
    script = Path(__file__).parent / "trainer_loads.py"
    command = [os.environ["CURATE_TRAINERS_PYTHON"], str(script), name, str(path), str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("read"), done.stdout


@pytest.mark.slow
@pytest.mark.skipif("CURATE_TRAINERS_PYTHON" not in os.environ, reason="needs trainers")
@pytest.mark.parametrize("trainer", ["nanotron", "olmo-core", "torchtitan", "axolotl", "litgpt"])
def test_the_trainers_own_loader_reads_the_file(mix, trainer, tmp_path):
    folder, tokens, _ = mix
    loads(trainer, folder / NAMES[trainer], tokens, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("CURATE_TRAINERS_PYTHON" not in os.environ, reason="needs their packages")
@pytest.mark.parametrize("reader", ["datatrove", "megatron-core", "mosaicml-streaming"])
def test_the_reader_of_a_format_finds_every_row(mix, reader, tmp_path):
    folder, tokens, spec = mix
    rows = pq.read_table(folder / "data" / "part-00000.parquet", columns=ROW_SCHEMA.names)
    texts = rows["text"].to_pylist()
    ids = [[*each.tolist(), spec.end] for each in spec.encode(texts)]
    (tmp_path / "wanted.json").write_text(json.dumps({"ids": ids, "texts": texts}))
    name = {"datatrove": "part.ds", "megatron-core": "part.bin", "mosaicml-streaming": "part.mds"}
    path = tmp_path / name[reader]
    if reader == "mosaicml-streaming":
        write_mds(path, rows)
        write_mds_index(tmp_path, [(path.name, len(rows))])
    else:
        (write_tokens if path.suffix == ".ds" else write_megatron)(path, rows, spec)
    loads(reader, path, tokens, tmp_path)
