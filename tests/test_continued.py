"""A pretrained model in training: its own loss, documents apart, and what learns."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers

from curate.errors import CurateError
from curate.settings import VerifySettings
from curate.task2vec.probe import load_probe
from curate.verification.answers import continuation_nats, write_greedily
from curate.verification.blocks import pack_blocks
from curate.verification.checks import check_start
from curate.verification.continued import ContinuedModel
from curate.verification.evaluate import item_nats
from curate.verification.start import PRETRAINED, Start, find_start, load_start, train_settings
from curate.verification.train import TrainSettings, train_model

EOS, VOCAB = 0, 50
SETTINGS = TrainSettings(
    size=PRETRAINED,
    vocab=VOCAB,
    eos=EOS,
    tokens=1_024,
    block_tokens=32,
    batch_tokens=128,
    learning_rate=1e-2,
    seed=0,
)
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2),
    "llama": transformers.LlamaConfig(
        vocab_size=VOCAB, num_hidden_layers=2, num_key_value_heads=2, **SMALL
    ),
    "llama, tied": transformers.LlamaConfig(
        vocab_size=VOCAB, num_hidden_layers=2, tie_word_embeddings=True, **SMALL
    ),
    "neox": transformers.GPTNeoXConfig(vocab_size=VOCAB, num_hidden_layers=2, **SMALL),
}
LLAMA = {"vocab_size": VOCAB, "num_hidden_layers": 2, "num_key_value_heads": 2, **SMALL,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
GPT = {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 2}
OTHERS = {  # and whether documents may share a row
    "gemma2": (  # capped logits; attention that adds its mask up
        True, transformers.Gemma2Config(**LLAMA, head_dim=8, final_logit_softcapping=1.5)
    ),
    "cohere": (True, transformers.CohereConfig(**LLAMA, logit_scale=0.25)),
    "granite": (True, transformers.GraniteConfig(**LLAMA, logits_scaling=4.0)),  # divided
    "phi": (True, transformers.PhiConfig(**LLAMA)),  # a bias of the head
    "gptj": (True, transformers.GPTJConfig(**GPT, n_embd=32, rotary_dim=4)),
    "mistral": (False, transformers.MistralConfig(**LLAMA, sliding_window=8)),
    "gpt-oss": (  # a window in one layer of two
        False,
        transformers.GptOssConfig(
            **LLAMA, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
        ),
    ),
    "bloom": (False, transformers.BloomConfig(**GPT)),  # no positions to restart
    "mamba": (False, transformers.MambaConfig(**LLAMA, state_size=4)),  # a state goes on
    "recurrent-gemma": (  # capped by another name; a state goes on
        False,
        transformers.RecurrentGemmaConfig(
            **LLAMA | {"num_hidden_layers": 3}, lru_width=32, attention_window_size=64,
            logits_soft_cap=1.5,
        ),
    ),
    "opt": (
        True,
        transformers.OPTConfig(
            vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, ffn_dim=48,
            num_attention_heads=2, word_embed_proj_dim=16, max_position_embeddings=64,
        ),
    ),
    "llama4": (  # its base_model_prefix names a part that it does not have
        True,
        transformers.Llama4TextConfig(
            **LLAMA, head_dim=8, intermediate_size_mlp=48, num_local_experts=4, moe_layers=[]
        ),
    ),
}  # fmt: skip
ALL = {kind: (True, config) for kind, config in CONFIGS.items()} | OTHERS


def causal(kind):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(ALL[kind][1])


def sharp(kind):
    """A model that is far from a guess, whose biases count."""
    model = causal(kind).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.ndim > 1 else 1.0)
        head = model.get_output_embeddings()
        if head.bias is not None:
            head.bias.normal_()
    return model


def continued(model, *, lora=0, seed=0):
    return ContinuedModel(model, lora=lora, seed=seed, block_tokens=32)


def own_nats(model, ids):
    """The loss of the model itself on one document, all of its labels."""
    there = torch.tensor(np.asarray(ids)[None].astype(np.int64))
    return model(input_ids=there, labels=there).loss * (len(ids) - 1)


def texts(n=20):
    """Documents in which each token is the one before plus one."""
    rng = np.random.default_rng(0)
    return [
        ((rng.integers(VOCAB) + np.arange(size)) % (VOCAB - 1) + 1).astype(np.int32)
        for size in rng.integers(5, 60, size=n)
    ]


@pytest.mark.parametrize("kind", ALL)
def test_loss_and_gradients_are_those_of_the_model_itself(kind):
    """Of each document alone, although they lie in two rows of one batch."""
    rng = np.random.default_rng(0)
    documents = [np.array([EOS, *rng.integers(1, VOCAB, n), EOS]) for n in (7, 16, 3, 20)]
    plain, model = sharp(kind), continued(sharp(kind))
    assert model.shares_rows == ALL[kind][0]
    wanted = sum(own_nats(plain, document) for document in documents)
    wanted.backward()
    ids, labels, starts = (
        torch.tensor(np.concatenate(parts).reshape(1, 2, 25))
        for parts in (
            [document[:-1] for document in documents],
            [document[1:] for document in documents],
            [np.full(8, 0), np.full(17, 8), np.full(4, 0), np.full(21, 4)],
        )
    )
    found = model.nats(model(ids, starts), labels).sum()
    found.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    theirs = dict(plain.named_parameters())
    largest = max(each.grad.abs().max() for each in theirs.values() if each.grad is not None)
    for name, parameter in model.model.named_parameters():
        if theirs[name].grad is not None:
            torch.testing.assert_close(
                parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5 * float(largest)
            )


@pytest.mark.parametrize("kind", ALL)
def test_what_is_measured_and_answered_is_of_the_model_itself(kind):
    plain, model = sharp(kind), continued(sharp(kind))
    known = {"eos": EOS, "block_tokens": 32}
    items = [ids[:31] for ids in texts(5)]
    with torch.no_grad():
        wanted = [own_nats(plain, [EOS, *ids]).item() for ids in items]
        of_all = [plain(torch.tensor([[EOS, *ids]]).long()).logits[0, :-1] for ids in items]
    nats = item_nats(model, items, **known)[0]
    np.testing.assert_allclose(nats, wanted, rtol=1e-5)
    last = [min(3, len(ids)) for ids in items]
    found, _ = continuation_nats(model, items, last, **known)
    for logits, ids, n, value in zip(of_all, items, last, found, strict=True):
        labels = torch.tensor(ids[-n:]).long()
        rows = torch.nn.functional.cross_entropy(logits[-n:], labels, reduction="sum")
        assert value == pytest.approx(rows.item(), rel=1e-4)
    start = items[0][:9]
    (written,) = write_greedily(model, [start], [3], ended=lambda *_: False, **known)
    with torch.no_grad():
        ids = [EOS, *start]
        for token in written:
            assert token == plain(torch.tensor([ids]).long()).logits[0, -1].argmax()
            ids.append(token)


@pytest.mark.parametrize("kind", ["gemma2", "phi", "mistral", "bloom"])
@pytest.mark.parametrize("lora", [0, 2])
def test_every_kind_learns(kind, lora):
    plan = dataclasses.replace(SETTINGS, tokens=2_048, learning_rate=1e-2)
    start = continued(causal(kind), lora=lora)
    _, curve = train_model(texts(), plan, start=start)
    assert curve[-1][1] < curve[0][1] - 0.02


def test_adapters_change_nothing_before_the_first_step_and_alone_learn():
    plain = continued(causal("llama"))
    before = {name: value.clone() for name, value in plain.model.state_dict().items()}
    model = continued(causal("llama"), lora=4)
    ids, starts = torch.arange(20)[None, None], torch.zeros(1, 1, 20, dtype=torch.long)
    with torch.no_grad():
        torch.testing.assert_close(model(ids, starts), plain(ids, starts))
    trained, _ = train_model(texts(), SETTINGS, start=model)
    learning = {name for name, each in trained.named_parameters() if each.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    after = trained.model.state_dict()
    for name, value in before.items():
        new = name if name in after else name.replace(".weight", ".base_layer.weight")
        assert torch.equal(after[new], value), name
    assert any(
        each.abs().max() > 0 for name, each in trained.named_parameters() if "lora_B" in name
    )


@pytest.mark.parametrize("lora", [0, 2])
def test_training_learns_and_its_seed_decides_it(lora):
    longer = dataclasses.replace(SETTINGS, tokens=4_096, learning_rate=3e-2)
    runs = [
        train_model(texts(), longer, start=continued(causal("llama"), lora=lora, seed=seed))
        for seed in (0, 0)
    ]
    (one, curve), (other, again) = runs
    assert curve == again and curve[-1][1] < curve[0][1] - 0.05
    nats = [item_nats(model, texts(5), eos=EOS, block_tokens=32) for model in (one, other)]
    np.testing.assert_array_equal(*nats)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_run_that_goes_on_from_a_step_ends_the_same(lora):
    def start():
        return continued(causal("gpt2"), lora=lora)

    kept = []

    def on_step(progress):
        if progress.step == 3:
            kept.append(progress.snapshot(0))

    _, curve = train_model(texts(), SETTINGS, start=start(), on_step=on_step)
    if lora:  # only what learns is kept
        assert all("lora_" in name for name in kept[0].tensors if name.startswith("model/"))
    _, again = train_model(texts(), SETTINGS, start=start(), resume=kept[0])
    assert curve == again


def test_a_start_is_found_loaded_and_refused_when_it_has_changed():
    probe = load_probe("builtin", device="cpu")
    assert find_start(VerifySettings(), probe.info.revision) is None
    start = find_start(VerifySettings(model="builtin", lora=2), probe.info.revision)
    assert start == Start("builtin", probe.info.revision, 2)
    assert load_start(start, SETTINGS) is not None
    with pytest.raises(CurateError, match="changed"):
        load_start(dataclasses.replace(start, revision="other"), SETTINGS)


def test_the_learning_rate_is_that_of_the_kind_of_start():
    probe = load_probe("builtin", device="cpu")

    def rate(**given):
        settings = VerifySettings(**given)
        return train_settings(settings, probe, tokens=100, seed=0).learning_rate

    assert rate() == 1e-2 > rate(model="builtin", lora=2) > rate(model="builtin")
    assert rate(model="builtin", learning_rate=0.5) == rate(learning_rate=0.5) == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lora": 2}, r"lora is 2: adapters need a model"),
        ({"model": "builtin", "block_tokens": 1 << 20}, r"builtin reads at most \d+ tokens"),
    ],
)
def test_a_start_that_cannot_be_is_refused(given, message):
    with pytest.raises(CurateError, match=message) as caught:
        check_start(VerifySettings(**given), load_probe("builtin", device="cpu"))
    assert caught.value.exit_code == 2


def test_logits_of_unknown_make_are_refused(monkeypatch):
    """A scale that no configuration names."""
    probe = load_probe("builtin", device="cpu")
    plain = probe.model.forward

    def changed(**given):
        output = plain(**given)
        output.logits = output.logits * 1.1
        return output

    probe.model.forward = changed
    check_start(VerifySettings(), probe)  # its tokenizer alone is used
    with pytest.raises(CurateError) as caught:
        check_start(VerifySettings(model="builtin"), probe)
    assert str(caught.value) == (
        f"[verify] model builtin: {type(probe.model).__name__} changes its last hidden state or "
        "its logits, so that its loss cannot be told from its head; name another model"
    )
    assert caught.value.exit_code == 2
    monkeypatch.setattr("curate.task2vec.probe.load_probe", lambda *_, **__: probe)
    for lora in (0, 2):  # it is not the adapters that are wrong
        with pytest.raises(CurateError) as again:
            load_start(Start("builtin", probe.info.revision, lora), SETTINGS)
        assert str(again.value) == str(caught.value)


def test_adapters_that_fit_no_layer_are_told_of(monkeypatch):
    probe = load_probe("builtin", device="cpu")
    monkeypatch.setattr("curate.task2vec.probe.load_probe", lambda *_, **__: probe)
    with pytest.raises(CurateError, match=r"^\[verify\] lora: .*; leave it out: all weights learn"):
        load_start(Start("builtin", probe.info.revision, -1), SETTINGS)


def test_an_easy_first_batch_is_no_divergence():
    easy = np.full(200, 7, np.int32)
    known, _ = train_model([easy], SETTINGS, start=continued(causal("llama")))
    documents = [easy, np.random.default_rng(0).integers(1, VOCAB, 800).astype(np.int32)]

    def first_is_easy(settings):
        data = pack_blocks(documents, eos=EOS, block_tokens=32, tokens=1_000, seed=settings.seed)
        return (data.labels[0] == 7).all() and (data.labels[1:9] == 7).mean() < 0.2

    plans = (
        dataclasses.replace(SETTINGS, tokens=1_000, batch_tokens=32, learning_rate=1e-9, seed=seed)
        for seed in range(1_000)
    )
    plan = next(plan for plan in plans if first_is_easy(plan))
    _, curve = train_model(documents, plan, start=known)
    assert np.mean([loss for _, loss in curve[1:9]]) > curve[0][1] + 1
