"""Booby-trapped inputs: whatever a file asks to be run, nothing runs, and one line says so."""

import ast
import base64
import json
import os
import random
import re
import shutil
from pathlib import Path

import faiss
import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner

from curate.cli import main
from curate.corpus.hub import HubName, parse_hub_name, read_hub_rows
from curate.corpus.inputs import InputFile
from curate.corpus.ledger import LedgerBuilder
from curate.corpus.reader import read_documents
from curate.errors import CurateError
from curate.ranking.index import open_faiss, shortlist
from curate.records import ProbeInfo
from curate.task2vec.foreign import MAX_TEXT_BYTES
from curate.task2vec.probe import encode_texts, load_probe
from curate.task2vec.tokenizer import load_encode
from tests.conftest import write_jsonl
from tests.test_layers import MODULES
from tests.test_probe import save_probe


class Trap:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


@pytest.fixture
def canary(tmp_path):
    """A path that no test may find anything at."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "what an input asked for was run"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def change(path, **values):
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**table, **values}))


def refused(folder):
    with pytest.raises(CurateError) as caught:
        load_probe(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trap_code(canary):
    return f"import os\nos.mkdir({str(canary)!r})\nclass Model: pass\nclass Config: pass\n"


def test_the_trap_works(tmp_path):
    torch.save(Trap(tmp_path / "canary"), tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt"])
def test_pickled_weights_alone_are_refused(folder, canary, name):
    (folder / "model.safetensors").unlink()
    torch.save(Trap(canary), folder / name)
    assert "pickled ones are not read" in refused(folder)


def test_pickles_beside_safe_weights_are_not_looked_at(folder, canary):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt"):
        torch.save(Trap(canary), folder / name)
    assert load_probe(str(folder), device="cpu").info.vocab == 300


def test_an_index_of_weights_leads_to_no_pickle(folder, canary):
    torch.save(Trap(canary), folder / "weights.bin")
    names = dict.fromkeys(load_probe(str(folder)).model.state_dict(), "weights.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    change(folder / "model.safetensors.index.json", metadata={}, weight_map=names)
    assert "cannot be loaded" in refused(folder)


def test_a_pickle_named_as_safe_weights_is_refused(folder, canary):
    torch.save(Trap(canary), folder / "model.safetensors")
    assert "cannot be loaded" in refused(folder)


@pytest.mark.parametrize("kind", ["llama", "of_its_own"])
def test_code_beside_a_model_is_not_imported(folder, canary, kind):
    (folder / "modeling.py").write_text(trap_code(canary))
    (folder / "configuration.py").write_text(trap_code(canary))
    mapped = {"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"}
    change(folder / "config.json", auto_map=mapped, model_type=kind)
    if kind == "llama":
        load_probe(str(folder), device="cpu")
    else:
        assert "cannot be loaded" in refused(folder)


def test_code_of_a_tokenizer_is_not_imported(folder, canary):
    (folder / "tok.py").write_text(trap_code(canary))
    change(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tok.Model", "tok.Model"]}, tokenizer_class="Own",
    )  # fmt: skip
    try:
        load_probe(str(folder), device="cpu")
        load_encode(str(folder), load_probe(str(folder), device="cpu").info)
    except CurateError as error:
        assert "\n" not in str(error)


def test_a_chat_template_is_never_rendered(folder, canary):
    template = (
        f"{{{{ cycler.__init__.__globals__.os.mkdir('{canary}') }}}}"
        f"{{% for x in range(10**12) %}}x{{% endfor %}}"
    )
    change(folder / "tokenizer_config.json", chat_template=template)
    (folder / "chat_template.jinja").write_text(template)
    probe = load_probe(str(folder), device="cpu")
    assert len(encode_texts(probe, ["abc"])[0]) == 3


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff" * 9).decode()},
        {"type": "Precompiled", "precompiled_charsmap": "BAAAAGFiY2R6eg=="},
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": "((a"}, "content": ""},
    ],
    ids=["charsmap", "charsmap at work", "endless pattern", "no pattern"],
)
def test_a_tokenizer_that_panics_is_one_line(folder, normalizer, capfd):
    change(folder / "tokenizer.json", normalizer=normalizer)
    with pytest.raises(CurateError, match="cannot be loaded") as caught:
        encode_texts(load_probe(str(folder), device="cpu"), ["ab " + "a" * 40 + "b"])
    assert "\n" not in str(caught.value)
    capfd.readouterr()


def test_a_tokenizer_that_would_fill_the_memory_is_not_read(folder):
    with (folder / "tokenizer.json").open("r+b") as stream:
        stream.truncate(MAX_TEXT_BYTES + 1)
    assert f"more than {MAX_TEXT_BYTES:,}" in refused(folder)
    info = msgspec.convert(
        {"name": "x", "revision": "", "tokenizer_digest": "", "n_parameters": 1, "vocab": 1},
        ProbeInfo,
    )
    with pytest.raises(CurateError, match=r"tokenizer\.json is"):
        load_encode(str(folder), info)


JUNK = [None, -1, 0, 1e308, 10**12, "", [], {}, "x" * 50, True, [[]], {"type": "BPE"}, "float64"]


def places(value, so_far=()):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inside in list(pairs)[:12]:
        yield (*so_far, key)
        if isinstance(inside, dict | list):
            yield from places(inside, (*so_far, key))


def mutate(path, rng):
    """Put something else at one place of a JSON file."""
    table = json.loads(path.read_text())
    *way, last = rng.choice(list(places(table)))
    inside = table
    for key in way:
        inside = inside[key]
    inside[last] = rng.choice(JUNK)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_model_folder_loads_or_is_refused_in_one_line(saved, tmp_path, name, capfd):
    rng = random.Random(name)
    refusals = 0
    for number in range(25):
        folder = shutil.copytree(saved, tmp_path / str(number))
        mutate(folder / name, rng)
        try:
            encode_texts(load_probe(str(folder), device="cpu"), ["abc def"])
        except CurateError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals
    capfd.readouterr()


def test_a_data_set_s_script_is_not_run(tmp_path, canary):
    place = tmp_path / "evil"
    place.mkdir()
    (place / "evil.py").write_text(f"import datasets\n{trap_code(canary)}")
    write_jsonl(place / "data.jsonl", ["one", "two"])
    with pytest.raises(CurateError, match="cannot be read from the hub"):
        list(read_hub_rows(HubName(str(place / "evil.py"), "", "train", ""), commit="0" * 40))
    try:
        list(read_hub_rows(HubName(str(place), "", "train", ""), commit="0" * 40))
    except CurateError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["hf:../evil", "hf:./evil", "hf:org/evil", "hf:evil"])
def test_a_hub_name_that_is_a_path_here_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "here" / "org" / "evil").mkdir(parents=True)
    (tmp_path / "here" / "evil").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(CurateError, match="is also a path here"):
        parse_hub_name(f"{name}@{'0' * 40}")


def test_code_in_a_corpus_is_text(tmp_path, canary):
    (tmp_path / "in").mkdir()
    for name in ("evil.py", "dataset.py", "__init__.py", "conftest.py", "setup.py"):
        (tmp_path / "in" / name).write_text(trap_code(canary))
    done = CliRunner().invoke(main, ["index", str(tmp_path / "in"), "--dry-run"])
    assert done.exit_code == 0, done.output


def test_an_arrow_file_s_pickled_type_is_not_loaded(tmp_path, canary):
    import pickle

    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Trap(canary)),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=metadata)])
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table([pa.array(["one", "two"])], schema=schema))
    ledger = LedgerBuilder()
    texts = [d.text for d in read_documents(InputFile(path, "a"), text="text", ledger=ledger)]
    assert texts == ["one", "two"] or ledger.error


@pytest.mark.parametrize(
    "template",
    ["{text.__class__.__init__.__globals__}", "{text.__reduce__}", "{text!r}", "{text:>99999999}",
     "{text[0]}", "{0.__class__}", "{{7*7}}{text.__len__}"],
)  # fmt: skip
def test_a_template_reads_fields_and_nothing_of_python(template, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["one"])
    ledger = LedgerBuilder()
    try:
        found = list(read_documents(InputFile(path, "a"), text=template, ledger=ledger))
    except CurateError:
        return
    assert not found and ledger.finish().accepted == 0


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.mkdir [{canary}]", "corpus: !!python/name:os.system ''",
     "[corpus]\ninputs = !function os.mkdir", "import os; os.mkdir({canary})",
     "[corpus]\ninputs = ['$(mkdir {canary})', '`mkdir {canary}`']",
     "[embed]\nprobe = \"$(mkdir {canary})\"", "[target]\nname = \"|mkdir {canary}\""],
)  # fmt: skip
def test_settings_hold_values_and_nothing_that_runs(text, tmp_path, canary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", ["one", "two"])
    (tmp_path / "curate.toml").write_text(text.replace("{canary}", str(canary)))
    for words in (["index", "--dry-run"], ["rank"], ["targets"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code in (0, 1, 2), done.exception
        if done.exit_code:
            assert done.output.splitlines()[-1].startswith("curate: ")


def test_a_mutated_faiss_file_is_never_handed_to_faiss(tmp_path, monkeypatch):
    """Its reader has overrun memory on such files; ours has to see the digest first."""
    rng = random.Random(0)
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    path = tmp_path / "cache.faiss"
    whole = shortlist(open_faiss(path, vectors), vectors[3], count=5)
    data = path.read_bytes()
    read = []
    real = faiss.deserialize_index
    monkeypatch.setattr(faiss, "deserialize_index", lambda array: read.append(1) or real(array))
    for number in range(120):
        changed = bytearray(data)
        for _ in range(1 + number % 3):
            changed[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        if number % 4 == 0:
            del changed[rng.randrange(len(data)) :]
        path.write_bytes(changed)
        if bytes(changed) == data:
            continue
        found = shortlist(open_faiss(path, vectors), vectors[3], count=5)
        np.testing.assert_array_equal(found, whole)
        assert path.read_bytes() == data, "the cache was not made again"
    assert not read
    open_faiss(path, vectors)
    assert read == [1]


BANNED_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "yaml"}
BANNED_CALLS = re.compile(
    r"(?:^|\.)(?:eval|exec|compile|__import__|system|popen|read_pickle|extractall)$"
    r"|^torch\.load$|^os\.(?:exec|spawn)\w*$|^subprocess\."
)
# torch.compile fuses the operations of our own small models: nothing that a file holds
ALLOWED_CALLS = {"re.compile", "model.eval", "twin.requires_grad_.eval", "torch.compile"}


def dotted(node):
    """Return the dotted name of what is called, "" for anything else."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(source):
    """Return what a module does that could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in BANNED_MODULES]
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if BANNED_CALLS.search(name) and name not in ALLOWED_CALLS:
                found.append(name)
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if name.endswith("np.load") and given.get("allow_pickle") is not False:
                found.append(name)
            if given.get("trust_remote_code") or given.get("shell"):
                found.append(name)
            if name.endswith("from_pretrained") and "Auto" in name and "Config" not in name:
                found += [name] if given.get("trust_remote_code", True) is not False else []
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_module_can_run_what_a_file_holds(module):
    # the command that hands work to a batch system is the user's own, from curate.toml
    allowed = ["subprocess.run"] if module == "engine.batch" else []
    assert unsafe(MODULES[module].read_text(encoding="utf-8")) == allowed


def test_the_search_for_unsafe_calls_finds_them():
    for line in (
        "import pickle", "from joblib import load", "torch.load(p)", "np.load(p)", "eval(x)",
        "np.load(p, allow_pickle=True)", "os.system(x)", "subprocess.run(x)", "import yaml",
        "AutoModelForCausalLM.from_pretrained(p)", "f(trust_remote_code=True)",
    ):  # fmt: skip
        assert unsafe(line), line
    assert not unsafe("np.load(p, allow_pickle=False)\nre.compile(x)")


def test_published_files_are_of_kinds_that_hold_no_code():
    """By their first bytes: the package's own weights, and nothing pickled or zipped."""
    package = Path(MODULES["cli"]).parent
    for path in package.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            start = path.read_bytes()[:4]
            assert start[:1] != b"\x80" and start[:2] != b"PK", path
