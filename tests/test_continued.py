"""A pretrained model in training: its own loss, documents apart, and what learns."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers

from curate.errors import CurateError
from curate.settings import VerifySettings
from curate.task2vec.probe import load_probe
from curate.verification.blocks import pack_blocks
from curate.verification.checks import check_start
from curate.verification.continued import ContinuedModel
from curate.verification.evaluate import item_nats
from curate.verification.small_model import head_loss
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


def causal(kind):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[kind])


def texts(n=20):
    """Documents in which each token is the one before plus one."""
    rng = np.random.default_rng(0)
    return [
        ((rng.integers(VOCAB) + np.arange(size)) % (VOCAB - 1) + 1).astype(np.int32)
        for size in rng.integers(5, 60, size=n)
    ]


@pytest.mark.parametrize("kind", CONFIGS)
def test_loss_and_gradients_are_those_of_the_model_itself(kind):
    ids = torch.arange(1, 25)[None] % VOCAB
    plain = causal(kind).eval()
    logits = plain(input_ids=ids[:, :-1]).logits.transpose(1, 2)
    wanted = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none")[0]
    wanted.mean().backward()
    model = ContinuedModel(causal(kind), lora=0, seed=0)
    hidden = model(ids[None, :, :-1], torch.zeros_like(ids[None, :, :-1]))
    (nats,) = head_loss(model.head, hidden, ids[None, :, 1:])
    (nats.sum() / len(nats)).backward()
    torch.testing.assert_close(nats, wanted.detach(), rtol=1e-5, atol=1e-5)
    theirs = dict(plain.named_parameters())
    for name, parameter in model.model.named_parameters():
        if theirs[name].grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", CONFIGS)
def test_documents_of_one_block_do_not_see_each_other(kind):
    model = ContinuedModel(causal(kind), lora=0, seed=0)
    ids = torch.randint(VOCAB, (1, 1, 20), generator=torch.Generator().manual_seed(0))
    starts = torch.tensor([[[0] * 8 + [8] * 12]])
    with torch.no_grad():
        together = model(ids, starts)
        alone = model(ids[..., 8:], torch.zeros_like(ids[..., 8:]))
    torch.testing.assert_close(together[..., 8:, :], alone, rtol=1e-4, atol=1e-5)


def test_adapters_change_nothing_before_the_first_step_and_alone_learn():
    plain = ContinuedModel(causal("llama"), lora=0, seed=0)
    before = {name: value.clone() for name, value in plain.model.state_dict().items()}
    model = ContinuedModel(causal("llama"), lora=4, seed=0)
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
        train_model(texts(), longer, start=ContinuedModel(causal("llama"), lora=lora, seed=seed))
        for seed in (0, 0)
    ]
    (one, curve), (other, again) = runs
    assert curve == again and curve[-1][1] < curve[0][1] - 0.05
    nats = [item_nats(model, texts(5), eos=EOS, block_tokens=32) for model in (one, other)]
    np.testing.assert_array_equal(*nats)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_run_that_goes_on_from_a_step_ends_the_same(lora):
    def start():
        return ContinuedModel(causal("gpt2"), lora=lora, seed=0)

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
    assert load_start(start, seed=0) is not None
    with pytest.raises(CurateError, match="changed"):
        load_start(dataclasses.replace(start, revision="other"), seed=0)


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


def test_an_easy_first_batch_is_no_divergence():
    easy = np.full(200, 7, np.int32)
    known, _ = train_model([easy], SETTINGS, start=ContinuedModel(causal("llama"), lora=0, seed=0))
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
