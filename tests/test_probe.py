"""Loading probes: what is accepted, what is refused, and in which words."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curate.errors import CurateError
from curate.task2vec import tokenizer as tokenizer_room
from curate.task2vec.probe import BUILTIN, encode_texts, find_revision, load_probe
from curate.task2vec.tokenizer import load_encode

torch.set_num_threads(1)


def save_probe(folder, *, seed=0, vocab=300, positions=64):
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
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
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


def test_a_tokenizer_with_an_id_beyond_the_model_is_refused_however_few_ids_it_has(tmp_path):
    save_probe(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["Ā"] = 400  # the byte 0
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(CurateError, match="token ids up to 400, its model 300 tokens"):
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


def write_gguf(path, folder, *, leave_out=""):
    """Write a probe folder's weights as llama.cpp lays them out, in float32."""
    gguf = pytest.importorskip("gguf")
    model = LlamaForCausalLM.from_pretrained(folder)
    config, vocab = model.config, save_vocab(folder)
    out = gguf.GGUFWriter(path, "llama")
    out.add_name("tiny")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(vocab)
    out.add_token_types([1] * 256 + [3] * (len(vocab) - 256))
    out.add_token_merges(["\u0120 t"])
    out.add_eos_token_id(256)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "token_embd",
        "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
    }  # fmt: skip
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        for theirs, its in names.items():
            name = name.replace(theirs, its)
        for key, n in heads.items():
            if key in name:  # llama.cpp interleaves the two halves that are rotated
                value = value.view(n, 2, -1, value.shape[1]).transpose(1, 2).reshape(value.shape)
        if not leave_out or leave_out not in name:
            out.add_tensor(name, value.contiguous().numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def save_vocab(folder):
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    known = {**{i: token for token, i in tokens.items()}, 257: "\u0120t", 258: "<|endoftext|>"}
    return [known.get(i, f"<unused{i}>") for i in range(300)]


def test_a_gguf_file_is_the_model_that_was_written(folder, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", folder)
    probe, plain = load_probe(str(path), device="cpu"), load_probe(str(folder), device="cpu")
    ids = torch.tensor([[72, 105, 33, 200, 7]])
    with torch.no_grad():
        ours, theirs = probe.model(ids).logits, plain.model(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert {p.dtype for p in probe.model.parameters()} == {torch.float32}
    assert probe.info.revision == find_revision(str(path))
    assert probe.max_positions == 64
    (ids,) = encode_texts(probe, ["abc"])
    assert ids.tolist() == encode_texts(plain, ["abc"])[0].tolist()


def test_a_gguf_file_without_all_weights_is_refused(folder, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", folder, leave_out="blk.1.ffn_up")
    with pytest.raises(CurateError, match=r"lack model\.layers\.1\.mlp\.up_proj"):
        load_probe(str(path), device="cpu")


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(CurateError, match=r"model\.gguf: cannot be loaded"):
        load_probe(str(path), device="cpu")


def test_gguf_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("curate.task2vec.gguf.find_spec", lambda name: None)
    with pytest.raises(CurateError, match=r"pip install 'curate\[gguf\]'"):
        load_probe(str(tmp_path / "model.gguf"), device="cpu")


@pytest.mark.skipif(not (BUILTIN / "config.json").is_file(), reason="no built-in weights")
def test_builtin_probe_loads():
    probe = load_probe("builtin", device="cpu")
    (ids,) = encode_texts(probe, ["The quick brown fox."])
    assert 1 < len(ids) < 20


def test_the_tokenizer_alone_is_the_probes_and_reads_markup_as_text(folder, tmp_path):
    texts = ["plain", "a<|end|>b", "", "ü ⏎\n\t"]
    probe = load_probe(str(folder), device="cpu")
    encode, digest = load_encode(str(folder), probe.info)
    assert digest == probe.info.tokenizer_digest
    wanted = [ids.tolist() for ids in encode_texts(probe, texts)]
    assert [ids.tolist() for ids in encode(texts)] == wanted
    assert 256 not in wanted[1]  # the token that ends a text
    # Of another name it is read by transformers, and does the same.
    other, same = load_encode(str(save_probe(tmp_path / "copy")), probe.info)
    assert same == digest and [ids.tolist() for ids in other(texts)] == wanted


def test_a_tokenizer_whose_file_is_not_the_index_s_is_read_by_transformers(folder, monkeypatch):
    info = load_probe(str(folder), device="cpu").info
    loaded = []
    real = tokenizer_room.load_tokenizer
    monkeypatch.setattr(
        tokenizer_room, "load_tokenizer", lambda *words: loaded.append(1) or real(*words)
    )
    load_encode(str(folder), info)
    assert not loaded
    load_encode(str(folder), dataclasses.replace(info, tokenizer_digest="another"))
    assert loaded


def test_of_a_hub_tokenizer_its_own_files_are_fetched_at_once_and_no_weights(
    folder, tmp_path, monkeypatch
):
    info = dataclasses.replace(load_probe(str(folder), device="cpu").info, name="org/probe")
    asked = []

    def snapshot(repository, *, revision, allow_patterns):
        asked.append((repository, revision))
        found = shutil.ignore_patterns("*.safetensors", "config.json")
        assert not any(fnmatch("model.safetensors", pattern) for pattern in allow_patterns)
        return shutil.copytree(folder, tmp_path / f"copy-{len(asked)}", ignore=found)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    for name in ("org/name", "org/name@v1", "org/probe"):
        encode, digest = load_encode(name, info)
        assert digest == info.tokenizer_digest and len(encode(["plain"])[0]) == 5
    assert asked == [("org/name", None), ("org/name", "v1"), ("org/probe", info.revision)]


def test_a_hub_tokenizer_out_of_reach_is_one_line_without_retries():
    code = (
        "from curate.records import ProbeInfo; from curate.task2vec.tokenizer import load_encode; "
        "load_encode('org/name', ProbeInfo('builtin', '', '', 0, 0))"
    )
    away = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    command, env = [sys.executable, "-c", code], os.environ | away
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert "CurateError: tokenizer org/name: cannot be fetched from the hub (" in done.stderr
    assert "Retry" not in done.stderr
