"""Loading probes: what is accepted, what is refused, and in which words."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curate.errors import CurateError
from curate.task2vec.probe import BUILTIN, encode_texts, find_revision, load_probe

torch.set_num_threads(1)


def save_probe(folder, *, seed=0, vocab=300):
    """Write a byte-level probe; the last token is a special one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[], unk_token=None)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
            bos_token_id=256, eos_token_id=256,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_probe(tmp_path_factory.mktemp("probe"))


def test_folder_is_loaded_for_inference(folder):
    probe = load_probe(str(folder), device="cpu")
    assert not probe.model.training
    assert not any(p.requires_grad for p in probe.model.parameters())
    assert {p.dtype for p in probe.model.parameters()} == {torch.float32}
    assert probe.info.vocab == 300
    assert probe.max_positions == 64
    assert probe.info.n_parameters == sum(p.numel() for p in probe.model.parameters())
    assert probe.info.revision == find_revision(str(folder))


def test_same_files_elsewhere_are_the_same_probe(folder, tmp_path):
    copy = save_probe(tmp_path / "copy")
    other = save_probe(tmp_path / "other", seed=1)
    one, two, three = (load_probe(str(f), device="cpu").info for f in (folder, copy, other))
    assert one.revision == two.revision != three.revision
    assert one.tokenizer_digest == two.tokenizer_digest == three.tokenizer_digest


def test_texts_become_plain_ids(folder):
    probe = load_probe(str(folder), device="cpu")
    found = encode_texts(probe, ["abc", "", "x" * 1000, "<|end|>"])
    assert [len(ids) for ids in found] == [3, 0, 1000, 7]  # markup is text, nothing is cut
    assert all(ids.dtype == "int32" for ids in found)
    assert found[3].max() < 256


def test_missing_probe_is_named(tmp_path):
    with pytest.raises(CurateError, match=r"probe \./nowhere: no such file or folder"):
        load_probe("./nowhere")
    with pytest.raises(CurateError, match=r"has no config\.json"):
        load_probe(str(tmp_path))
    with pytest.raises(CurateError, match="no such file"):
        load_probe(str(tmp_path / "model.gguf"))


def test_malformed_hub_id_is_named():
    with pytest.raises(CurateError, match="neither a file, nor a folder, nor a hub id"):
        load_probe("a/b/c d")


def test_pickled_weights_are_refused(tmp_path):
    save_probe(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CurateError, match=r"no \.safetensors weights"):
        load_probe(str(tmp_path))


def test_damaged_weights_are_refused(tmp_path):
    save_probe(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CurateError, match="cannot be loaded"):
        load_probe(str(tmp_path), device="cpu")


def test_tokenizer_larger_than_the_model_is_refused(tmp_path):
    save_probe(tmp_path, vocab=256)
    with pytest.raises(CurateError, match="files belong together"):
        load_probe(str(tmp_path), device="cpu")


def test_unknown_devices_are_refused(folder):
    with pytest.raises(CurateError, match="device abacus: not known"):
        load_probe(str(folder), device="abacus")
    with pytest.raises(CurateError, match="no such GPU"):
        load_probe(str(folder), device="cuda:99")


@pytest.mark.skipif(not (BUILTIN / "config.json").is_file(), reason="no built-in weights")
def test_builtin_probe_loads():
    probe = load_probe("builtin", device="cpu")
    (ids,) = encode_texts(probe, ["The quick brown fox."])
    assert 1 < len(ids) < 20
