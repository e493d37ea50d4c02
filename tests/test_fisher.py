"""The engine against its definition, closed forms, and everything that must not matter."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from curate.task2vec.batches import is_out_of_memory, lay_out, micro_batches, tokens_that_fit
from curate.task2vec.fisher import fisher_blocks, fisher_rows, iterate_rows
from curate.task2vec.labels import contrast_coefficients, draw_labels, sequence_seeds
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.rows import (
    gram_stripes,
    random_signs,
    rows_by_gradient,
    rows_by_gram,
    rows_by_position,
    rows_by_signs,
)

VOCAB = 97
torch.set_num_threads(1)


def gpt2(vocab=VOCAB):
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=160,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def llama(tied=False, vocab=VOCAB):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=160,
            tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def neox():
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=160, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def mixtral():
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
            num_experts_per_tok=2, max_position_embeddings=160, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def phi():
    """Its head has a bias."""
    return PhiForCausalLM(
        PhiConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=160, bos_token_id=0, eos_token_id=0,
            pad_token_id=0,
        )
    )  # fmt: skip


MODELS = {
    "gpt2": gpt2,
    "llama": llama,
    "llama-tied": lambda: llama(tied=True),
    "neox": neox,
    "mixtral": mixtral,
}


def build(name="llama"):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():  # sharper than at initialisation, so that labels are not uniform
        for parameter in model.parameters():
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
    return model


def texts(lengths=(70, 9, 33, 70, 2), vocab=VOCAB):
    rng = np.random.default_rng(0)
    return [rng.integers(1, vocab, n).astype(np.int32) for n in lengths]


def labels_from(logits, seeds):
    """Labels drawn from softmax(logits)."""
    return draw_labels(torch.exp(logits - logits.amax(dim=-1, keepdim=True)), seeds)


def labels_of(model, ids, settings):
    """The labels that the engine draws for one sequence, drawn from a pass of its own."""
    seeds = torch.from_numpy(
        sequence_seeds(ids, draws=settings.draws, contrast=settings.contrast, seed=settings.seed)
    )
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids).long()[None]).logits[0, :-1]
    return [labels_from(logits, each) for each in seeds]


def naive(model, sequences, settings):
    """The definition: one sequence at a time, float64, every weight gradient formed."""
    config = copy.deepcopy(model.config)
    config._experts_implementation = "eager"  # the grouped product has no float64
    twin = type(model)(config).eval().double()
    twin.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    twin.tie_weights()
    blocks = fisher_blocks(model, settings)
    total = np.zeros(blocks[-1].stop)
    for ids in sequences:
        tensor = torch.from_numpy(ids).long()
        data = settings.labels == "data"
        draws = [tensor[1:, None]] if data else labels_of(model, ids, settings)
        for labels in draws:
            logp = twin(input_ids=tensor[None]).logits[0, :-1].log_softmax(-1)
            c = torch.from_numpy(contrast_coefficients(labels.shape[1])).double()
            twin.zero_grad()
            (logp.gather(1, labels) * c).sum().backward()
            rows = np.concatenate([naive_rows(twin, block) for block in blocks])
            total += rows / len(draws)
    return total / len(sequences)


def naive_rows(twin, block):
    """The squared gradient of one block's parameter, reduced to what its name says."""
    parameters = dict(twin.named_parameters())
    name = block.name if block.name in parameters else f"{block.name}.weight"
    grad = parameters[name].grad
    grad = torch.zeros_like(parameters[name]) if grad is None else grad
    module = twin.get_submodule(name.rpartition(".")[0])
    if isinstance(module, Conv1D) and grad.ndim == 2:
        grad = grad.T
    if grad.ndim == 3 and module.is_transposed:  # experts (in, out)
        grad = grad.transpose(1, 2)
    if grad.numel() == block.stop - block.start:  # a vector, or a norm of (heads, width)
        return grad.square().flatten().numpy()
    return grad.square().mean(-2 if block.kind.endswith(".in") else -1).flatten().numpy()


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", ["output", "both"])
def test_engine_is_its_definition(name, rows):
    check_definition(name, FisherSettings(rows=rows))


ALL = ("norms", "biases", "embeddings", "head")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("gpt2", "llama-tied")])
def test_norms_biases_embeddings_and_head_are_their_definition(name):
    check_definition(name, FisherSettings(also=ALL, draws=2))


@pytest.mark.parametrize("name", ["gpt2", "llama-tied"])
def test_tied_embeddings_hold_the_gradient_of_both_ends(name):
    model = build(name)
    check_definition(name, FisherSettings(also=ALL))
    with pytest.raises(ValueError, match="tied"):
        fisher_rows(model, texts(), settings=FisherSettings(also=("head",)))


def test_the_bias_of_a_head_is_its_definition(monkeypatch):
    monkeypatch.setitem(MODELS, "phi", phi)
    check_definition("phi", FisherSettings(also=ALL))
    check_definition("phi", FisherSettings(also=("biases",), draws=2))
    model = build("phi")
    blocks = fisher_blocks(model, FisherSettings(also=("biases",)))
    assert "lm_head.bias" in {block.name for block in blocks}
    assert "lm_head" not in {block.name for block in blocks}
    with pytest.raises(ValueError, match="rows of the head need labels = 'model'"):
        fisher_blocks(model, FisherSettings(also=("biases",), labels="data"))


def test_each_addition_brings_its_own_coordinates():
    model = build("gpt2")
    plain = {b.name for b in fisher_blocks(model, FisherSettings())}
    extra = {
        also: {b.name for b in fisher_blocks(model, FisherSettings(also=(also,)))} - plain
        for also in ("norms", "biases", "embeddings")
    }
    assert "transformer.ln_f" in extra["norms"]
    assert "transformer.h.0.ln_1" in extra["norms"]
    assert "transformer.h.1.mlp.c_fc.bias" in extra["biases"]
    assert "transformer.ln_f.bias" in extra["biases"]
    assert extra["embeddings"] == {"transformer.wte", "transformer.wpe"}
    with pytest.raises(ValueError, match="also names heads; known: norms"):
        fisher_blocks(model, FisherSettings(also=("heads",)))


def check_definition(name, settings):
    model, sequences = build(name), texts()
    found = fisher_rows(model, sequences, settings=settings)
    expected = naive(model, sequences, settings)
    assert relative(found.values[0], expected) < 1e-5
    for block in found.blocks:
        part = slice(block.start, block.stop)
        if np.linalg.norm(expected[part]) > 1e-12 * np.linalg.norm(expected):
            assert relative(found.values[0, part], expected[part]) < 2e-5, block.name


@pytest.mark.parametrize(
    "settings",
    [
        FisherSettings(contrast=1),
        FisherSettings(contrast=2, draws=3, seed=5),
        FisherSettings(contrast=8, rows="input"),
        FisherSettings(labels="data"),
    ],
)
def test_every_setting_is_its_definition(settings):
    model, sequences = build(), texts()
    found = fisher_rows(model, sequences, settings=settings)
    assert relative(found.values[0], naive(model, sequences, settings)) < 1e-5


def test_blocks_name_every_matrix_by_its_output_units():
    model = build("gpt2")
    found = fisher_rows(model, texts(), settings=FisherSettings())
    assert [(b.name, b.layer, b.kind, b.stop - b.start) for b in found.blocks[:4]] == [
        ("transformer.h.0.attn.c_attn", 0, "c_attn", 96),
        ("transformer.h.0.attn.c_proj", 0, "c_proj", 32),
        ("transformer.h.0.mlp.c_fc", 0, "c_fc", 128),
        ("transformer.h.0.mlp.c_proj", 0, "c_proj", 32),
    ]
    assert [b.start for b in found.blocks[1:]] == [b.stop for b in found.blocks[:-1]]
    assert found.blocks[-1].stop == found.values.shape[1]


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_batch_size_and_padding_do_not_matter(batch_tokens):
    model, sequences = build(), texts()
    one = fisher_rows(model, sequences, batch_tokens=300)
    other = fisher_rows(model, sequences, batch_tokens=batch_tokens)
    assert relative(other.values, one.values) < 1e-5
    assert np.allclose(other.hidden, one.hidden, atol=1e-5)
    assert other.loss == pytest.approx(one.loss, rel=1e-6)


def test_order_does_not_matter():
    model, sequences = build(), texts()
    one = fisher_rows(model, sequences)
    other = fisher_rows(model, sequences[::-1])
    assert relative(other.values, one.values) < 1e-5


def test_groups_are_the_runs_apart():
    model, sequences = build(), texts()
    both = fisher_rows(model, sequences, groups=[0, 1, 0, 1, 1])
    for group, which in enumerate([(0, 2), (1, 3, 4)]):
        alone = fisher_rows(model, [sequences[i] for i in which])
        assert relative(both.values[group], alone.values[0]) < 1e-5
        assert np.allclose(both.hidden[group], alone.hidden[0], atol=1e-5)
        assert both.n_sequences[group] == len(which)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_last_layers_are_the_end_of_all_layers(name):
    model, sequences = build(name), texts()
    whole = fisher_rows(model, sequences)
    last = fisher_rows(model, sequences, settings=FisherSettings(layers="last:1"))
    assert {b.layer for b in last.blocks} == {model.config.num_hidden_layers - 1}
    dim = last.values.shape[1]
    assert relative(last.values[0], whole.values[0, -dim:]) < 1e-5


def test_last_layers_end_the_backward_pass_there():
    model = build()
    reached = []

    def watch(module, args, output):
        if output.requires_grad:
            reached.append(module)
        return output

    model.model.layers[0].mlp.down_proj.register_forward_hook(watch)
    fisher_rows(model, texts(), settings=FisherSettings(layers="last:2"))
    assert not reached


def test_loss_and_hidden_are_the_models_own():
    model, sequences = build(), texts()
    found = fisher_rows(model, sequences)
    nats, hidden, n = 0.0, 0.0, 0
    for ids in sequences:
        tensor = torch.from_numpy(ids).long()[None]
        with torch.no_grad():
            out = model(input_ids=tensor, output_hidden_states=True)
        nats += nn.functional.cross_entropy(out.logits[0, :-1], tensor[0, 1:], reduction="sum")
        hidden += out.hidden_states[-1][0].sum(0)
        n += len(ids)
    assert found.loss == pytest.approx(float(nats) / (n - len(sequences)), rel=1e-5)
    assert np.allclose(found.hidden[0], hidden.numpy() / n, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 3, 7), (3, 130, 16, 8), (1, 64, 4, 4)])
def test_gram_and_gradient_forms_agree(shape):
    n, length, fan_in, fan_out = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, length, fan_in, generator=generator, dtype=torch.float64)
    y = torch.randn(n, length, fan_out, generator=generator, dtype=torch.float64)
    gradient = torch.einsum("nto,nti->noi", y, x)
    out, into = rows_by_gradient(x, y, rows="both")
    assert torch.allclose(out, gradient.square().sum(2))
    assert torch.allclose(into, gradient.square().sum(1))
    assert torch.allclose(rows_by_gram(gram_stripes(x), y), out)


class Softmax(nn.Module):
    """Logits H (W e(x)), with e(x) one-hot; softmax regression where H is the identity."""

    base_model_prefix = "base"

    def __init__(self, vocab, width=0):
        super().__init__()
        self.config = GPT2Config(n_layer=1, vocab_size=vocab, bos_token_id=0, eos_token_id=0)
        self.base = nn.Module()
        self.base.blocks = nn.ModuleList([nn.Linear(vocab, width or vocab, bias=False)])
        self.head = nn.Linear(width or vocab, vocab, bias=False)
        if not width:
            self.head.weight.data.copy_(torch.eye(vocab))
        self.base.forward = self.states
        self.vocab = vocab

    def get_output_embeddings(self):
        return self.head

    def states(self, input_ids, attention_mask=None, use_cache=False):
        from types import SimpleNamespace

        onehot = nn.functional.one_hot(input_ids, self.vocab).float()
        return SimpleNamespace(last_hidden_state=self.base.blocks[0](onehot))

    def forward(self, input_ids, use_cache=False):
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.head(self.states(input_ids).last_hidden_state))


def test_softmax_regression_has_its_closed_form():
    """E (e_y − p)²_o = p_o (1 − p_o) for every position: a row's sum over distinct tokens."""
    vocab = 6
    torch.manual_seed(0)
    model = Softmax(vocab).eval()
    model.base.blocks[0].weight.data.mul_(3)
    ids = np.array([0, 1, 2, 3], np.int64)  # distinct, so that cross terms vanish in expectation
    p = torch.softmax(model.base.blocks[0].weight.T[ids[:-1]], -1).detach()
    expected = ((p * (1 - p)).sum(0) / vocab).numpy()
    settings = [FisherSettings(draws=1_000, contrast=k, seed=k) for k in (1, 4)]
    for one in settings:
        found = fisher_rows(model, [ids], settings=one).values[0]
        assert np.allclose(found, expected, rtol=0.2, atol=6e-3)


@pytest.mark.parametrize("contrast", [1, 2, 4])
def test_expectation_over_labels_is_the_exhaustive_sum(contrast):
    """Every label string of a tiny vocabulary, weighted by its probability (float64)."""
    torch.manual_seed(1)
    vocab = 4
    model = llama(vocab=vocab).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
    ids = np.array([1, 2, 3], np.int32)
    names = {f"{b.name}.weight" for b in fisher_blocks(model, FisherSettings())}
    weights = [p for name, p in model.named_parameters() if name in names]
    logp = model(input_ids=torch.from_numpy(ids).long()[None]).logits[0, :-1].log_softmax(-1)
    exact = 0.0
    for labels in itertools.product(range(vocab), repeat=2):
        chosen = logp[torch.arange(2), torch.tensor(labels)].sum()
        grads = torch.autograd.grad(chosen, weights, retain_graph=True)
        square = torch.cat([g.square().mean(1) for g in grads])
        exact = exact + float(chosen.detach().exp()) * square.double()
    repeats = np.stack(
        [
            fisher_rows(
                model, [ids], settings=FisherSettings(draws=8, contrast=contrast, seed=seed)
            ).values[0]
            for seed in range(12)
        ]
    )
    mean, error = repeats.mean(0), repeats.std(0, ddof=1) / np.sqrt(len(repeats))
    z = (mean - exact.numpy()) / error
    assert abs(mean.sum() / float(exact.sum()) - 1) < 0.15
    assert np.mean(np.abs(z) < 4) > 0.95


def test_labels_follow_the_models_distribution():
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal(size=150)).float().expand(40_000, 150)
    seeds = torch.from_numpy(generator.integers(1 << 32, size=(40_000, 2)))
    counts = torch.bincount(labels_from(logits, seeds).reshape(-1), minlength=150).numpy()
    expected = torch.softmax(logits[0], -1).numpy() * counts.sum()
    chi = ((counts - expected) ** 2 / expected).sum()
    assert 149 - 4 * np.sqrt(298) < chi < 149 + 4 * np.sqrt(298)


def test_labels_of_neighbouring_seeds_are_independent():
    """Small numbers in a row are the worst that a hash can get."""
    logits = torch.tensor([0.5, 0.0, -0.3, 0.8, -1.0]).expand(40_000, 5)
    labels = labels_from(logits, torch.arange(80_000).view(40_000, 2))
    p = torch.softmax(logits[0], -1).double().numpy()
    for one, other in (labels.T, (labels[:-1, 0], labels[1:, 0])):
        counts = torch.bincount(5 * one + other, minlength=25).numpy()
        expected = np.outer(p, p).reshape(-1) * counts.sum()
        chi = ((counts - expected) ** 2 / expected).sum()
        assert 24 - 4 * np.sqrt(48) < chi < 24 + 4 * np.sqrt(48)


def test_logits_a_little_off_give_nearly_all_the_same_labels():
    """No coupling can change fewer labels than the distributions' distance; three times is near."""
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(4 * generator.standard_t(4, size=(400, 5_000))).float()
    seeds = torch.from_numpy(generator.integers(1 << 32, size=(400, 16)))
    rough = logits.bfloat16().float()
    distance = (torch.softmax(logits, -1) - torch.softmax(rough, -1)).abs().sum(-1).mean() / 2
    changed = (labels_from(logits, seeds) != labels_from(rough, seeds)).float().mean()
    assert 0 < distance < 0.05
    assert distance / 2 < changed < 3 * distance


def test_labels_of_certain_tokens_are_certain():
    logits = torch.full((3, 130), -torch.inf)
    logits[0, 0], logits[1, 129], logits[2, 64] = 0.0, 0.0, 0.0
    seeds = torch.tensor([0, 1 << 31, (1 << 32) - 1]).expand(3, 3)
    assert labels_from(logits, seeds).tolist() == [[0] * 3, [129] * 3, [64] * 3]


def test_contrast_has_mean_zero_and_unit_square():
    assert contrast_coefficients(1).tolist() == [1.0]
    for k in (2, 4, 8):
        assert abs(contrast_coefficients(k).sum()) < 1e-6
        assert np.square(contrast_coefficients(k)).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="even"):
        contrast_coefficients(3)


def test_seed_changes_labels_and_the_same_seed_does_not():
    model, sequences = build(), texts()
    values = [
        fisher_rows(model, sequences, settings=FisherSettings(seed=seed)).values
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(values[0], values[1])
    assert relative(values[2], values[0]) > 1e-3


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixture = nn.Parameter(torch.randn(32, 32))

    def forward(self, x):
        return x @ self.mixture


def test_unknown_layer_with_weights_is_named():
    model = build()
    model.model.layers[1].mlp.extra = Odd()
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.extra: Odd.*mixture"):
        fisher_rows(model, texts())


def test_stacked_weights_that_are_no_experts_are_named():
    model = build("mixtral")
    model.model.layers[0].mlp.experts.odd = nn.Parameter(torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.experts: .*\(odd\).*not known"):
        fisher_rows(model, texts())


@pytest.mark.parametrize("key", ["num_local_experts", "n_routed_experts"])
def test_experts_are_known_by_any_name_of_their_number(key):
    """DeepSeek's router says n_routed_experts in transformers 5.0, num_experts later."""
    model = build("mixtral")
    expected = fisher_blocks(model, FisherSettings())
    for module in model.modules():
        if "num_experts" in vars(module):
            setattr(module, key, vars(module).pop("num_experts"))
    assert fisher_blocks(model, FisherSettings()) == expected


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mixtral", {"square": "position"}, "stacked experts need square"),
        ("gpt2", {"square": "position", "also": ("embeddings",)}, "need square = 'sequence'"),
        ("gpt2", {"labels": "data", "also": ("embeddings",)}, "need labels = 'model'"),
        ("gpt2", {"signs": -1}, "signs is -1"),
        ("gpt2", {"draws": 0}, "draws is 0"),
        ("gpt2", {"contrast": 3}, "even number"),
    ],
)
def test_settings_that_name_no_quantity_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        fisher_rows(build(name), texts((5, 5)), settings=FisherSettings(**settings))


@pytest.mark.parametrize("layers", ["last", "last:0", "last:4", "first:1", "last:-1"])
def test_malformed_layers_are_refused(layers):
    with pytest.raises(ValueError, match="last:K"):
        fisher_rows(build(), texts(), settings=FisherSettings(layers=layers))


def test_degenerate_sequences_are_refused():
    model = build()
    with pytest.raises(ValueError, match="no sequences"):
        fisher_rows(model, [])
    with pytest.raises(ValueError, match="no next token"):
        fisher_rows(model, texts((5, 1)))
    with pytest.raises(ValueError, match="group 1 has no sequence"):
        fisher_rows(model, texts((5, 5)), groups=[0, 2])


def test_model_is_left_as_it_was():
    model = build()
    model.requires_grad_(True)
    model.model.embed_tokens.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fisher_rows(model, texts())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.lm_head.weight.requires_grad
    assert not model.model.embed_tokens.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_gradient_that_experts_have_already_is_left_and_not_counted():
    model, sequences = build("mixtral"), texts((9, 5))
    expected = fisher_rows(model, sequences).values
    model.requires_grad_(True)
    model(input_ids=torch.arange(9)[None]).logits.sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert np.array_equal(fisher_rows(model, sequences).values, expected)
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
)
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_the_callers_mode_does_not_matter(around, name):
    model, sequences = build(name), texts((9, 5))
    settings = FisherSettings(gradients=8, also=("norms",))
    expected = fisher_rows(model, sequences, settings=settings)
    with around():
        found = fisher_rows(model, sequences, settings=settings)
    assert np.array_equal(found.values, expected.values)
    assert np.array_equal(found.gradients, expected.gradients)


class Gated(nn.LayerNorm):
    def forward(self, x, gate=1.0):
        return super().forward(x) * gate


@pytest.mark.parametrize("given", [((2.0,), {}), ((), {"gate": 2.0})])
def test_a_norm_of_two_inputs_is_named(given):
    """Its slope cannot be had from one of them (Mamba's norm has a gate)."""
    model = build()
    gated, (rest, named) = Gated(32), given
    plain = model.model.layers[0].post_attention_layernorm
    model.model.layers[0].post_attention_layernorm = nn.Sequential(plain)
    plain.gated = gated
    plain.forward = lambda x: gated(x, *rest, **named)
    with pytest.raises(ValueError, match=r"0\.gated reads 2 inputs, where one is known"):
        fisher_rows(model, texts((9,)), settings=FisherSettings(also=("norms",)))


@pytest.mark.parametrize("layers", ["all", "last:1"])
def test_a_matrix_whose_output_is_changed_in_place_or_read_by_keyword(layers):
    """The first of the selected blocks, whose output nothing before gives a gradient."""
    model, sequences, settings = build(), texts((9, 5)), FisherSettings(layers=layers)
    expected = fisher_rows(model, sequences, settings=settings).values
    for layer in model.model.layers:
        layer.self_attn.q_proj = Kept(layer.self_attn.q_proj)
    found = fisher_rows(model, sequences, settings=settings)
    assert relative(found.values, expected) < 1e-6


class Kept(nn.Module):
    """The same numbers by a call with a keyword and a change in place."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, x):
        output = self.matrix(input=x)
        output *= 2
        return output / 2


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Spelt(nn.Linear):
    def forward(self, x):
        return x @ self.weight.T


def test_a_layer_that_inherits_from_linear_is_tried():
    model, sequences = build(), texts((9, 5))
    expected = fisher_rows(model, sequences).values
    for kind in (Spelt, Doubled):
        other = kind(48, 32, bias=False)
        other.weight = model.model.layers[1].mlp.down_proj.weight
        model.model.layers[1].mlp.down_proj = other
        if kind is Spelt:
            assert relative(fisher_rows(model, sequences).values, expected) < 1e-6
    with pytest.raises(ValueError, match=r"down_proj: Doubled holds weights \(weight\)"):
        fisher_rows(model, sequences)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 1 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"
    ),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"),
    RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838"),
    MemoryError("Unable to allocate 3.1 GiB for an array"),
]


LACKS = [
    "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the runtime's manual",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtMatmul( ltHandle, ...)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # from cuDNN 9 on
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "HIP error: out of memory",
    "HIP error: hipErrorOutOfMemory",
    "HIP error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "rocblas_status_memory_error",
    "miopenStatusAllocFailed",
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:838",
    "NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() INTERNAL ASSERT FAILED",
    "NVML_SUCCESS == DriverAPI::get()->nvmlDeviceGetHandleByPciBusId_v2_( pci_id, &nvml_device)",
    "unable to mmap 1024 bytes from file <x>: Cannot allocate memory (12)",
    "std::bad_alloc",
]
"""Words of torch 2.10 to 2.13 and of the libraries under it, CUDA's and ROCm's, and of the host."""


@pytest.mark.parametrize("said", LACKS)
def test_every_form_of_no_memory_is_known(said):
    assert is_out_of_memory(RuntimeError(said))
    assert is_out_of_memory(torch.AcceleratorError(said))


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: f"{type(e).__name__} {e}"[:50])
@pytest.mark.parametrize("packed", [False, True])
def test_out_of_memory_halves_the_batch_with_the_same_answer(monkeypatch, error, packed):
    from curate.task2vec import passes

    model, sequences = build("gpt2"), texts((9, 5, 8, 9, 2))
    expected = fisher_rows(model, sequences)
    plain, sizes = passes.last_hidden, []

    def short_of_memory(model, batch, **rest):
        sizes.append(batch.layout.n)
        if batch.layout.n > 3:
            raise error
        return plain(model, batch, **rest)

    monkeypatch.setattr(passes, "last_hidden", short_of_memory)
    found = fisher_rows(model, sequences, packed=packed)
    assert sizes[-3:] == [5, 2, 3]
    assert relative(found.values, expected.values) < 1e-5
    assert not any(m._forward_hooks for m in model.modules())


def test_other_errors_and_a_batch_of_one_are_not_caught(monkeypatch):
    from curate.task2vec import fisher

    for said in (
        "CUDA error: an illegal memory access",
        "CUDA error: device not ready",
        "CUBLAS_STATUS_EXECUTION_FAILED when calling",
        "cuDNN error: CUDNN_STATUS_BAD_PARAM",
    ):
        assert not is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(ValueError("out of memory"))
    for error in (RuntimeError("shape mismatch"), MemoryError("none left")):

        def fail(*given, error=error, **named):
            raise error

        monkeypatch.setattr(fisher, "pass_and_back", fail)
        with pytest.raises(type(error), match=str(error)):
            fisher_rows(build("gpt2"), texts((5,)))


def test_estimate_of_memory_is_monotone_and_leaves_room():
    widths = [(768, 2304), (768, 768), (768, 3072), (3072, 768)] * 12
    given = {"widths": widths, "hidden": 768, "length": 512}
    one = tokens_that_fit(8 << 30, **given, element=4)
    assert 1_000 < one < 40_000
    assert tokens_that_fit(16 << 30, **given, element=4) == pytest.approx(2 * one, rel=0.01)
    assert tokens_that_fit(8 << 30, **given, element=2) > one
    assert tokens_that_fit(0, **given, element=4) == 1


def test_sequence_rows_average_to_the_groups():
    model, sequences = build(), texts()
    rows = {}
    for part in iterate_rows(model, sequences, settings=FisherSettings(), batch_tokens=150):
        rows.update(zip(part.which, part.rows.double().numpy(), strict=True))
    mean = np.mean([rows[i] for i in range(len(sequences))], axis=0)
    assert relative(fisher_rows(model, sequences).values[0], mean) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
@pytest.mark.parametrize("batch_tokens", [80, 10_000])
def test_packed_documents_contribute_as_if_alone(name, batch_tokens):
    """Block-diagonal attention, positions that restart: equal to one sequence at a time."""
    model, sequences = build(name), texts((70, 9, 33, 70, 2, 40, 21))
    settings = FisherSettings(also=("norms", "biases", "embeddings"))
    if name == "neox":
        settings = FisherSettings(also=("norms", "biases", "embeddings", "head"))
    alone = fisher_rows(model, sequences, settings=settings, batch_tokens=1)
    packed = fisher_rows(
        model, sequences, settings=settings, batch_tokens=batch_tokens, packed=True
    )
    assert relative(packed.values, alone.values) < 1e-5
    assert np.allclose(packed.hidden, alone.hidden, atol=1e-5)
    assert packed.loss == pytest.approx(alone.loss, rel=1e-5)


def test_packing_fills_rows_and_keeps_every_token():
    batch = lay_out(
        texts((70, 9, 33, 70, 2, 40, 21)), FisherSettings(), packed=True,
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip
    assert batch.ids.shape == (4, 70)
    assert len(batch.inputs) == 245 - 7
    kept = batch.layout.places[batch.layout.places < 4 * 70]
    assert len(kept.unique()) == 245
    assert batch.positions.max() == 69


def test_a_model_that_mixes_packed_documents_is_refused():
    model = build("gpt2")
    plain = model.transformer.forward

    def forgetful(input_ids, position_ids=None, **given):
        return plain(input_ids, **given)

    model.transformer.forward = forgetful
    with pytest.raises(ValueError, match="does not keep packed sequences apart"):
        fisher_rows(model, texts(), packed=True)


@pytest.mark.parametrize("rows", ["output", "input", "both"])
def test_signs_estimate_rows_without_bias(rows):
    model, sequences = build(), texts()
    exact = fisher_rows(model, sequences, settings=FisherSettings(rows=rows)).values[0]
    rough = np.mean(
        [
            fisher_rows(
                model, sequences, settings=FisherSettings(rows=rows, signs=64), batch_tokens=t
            ).values[0]
            for t in (90, 10_000)
        ],
        axis=0,
    )
    assert abs(rough.sum() / exact.sum() - 1) < 0.1
    assert np.median(np.abs(rough / exact - 1)) < 2 * np.sqrt(2 / 64)
    many = [
        rows_by_signs(x @ random_signs(16, 8, seed), y)
        for x, y in [_random_pair()]
        for seed in range(400)
    ]
    x, y = _random_pair()
    (expected,) = rows_by_gradient(x, y, rows="output")
    error = torch.stack(many).std(0) / 20
    assert ((torch.stack(many).mean(0) - expected).abs() < 5 * error).all()


def _random_pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 16, generator=generator)
    return x, torch.randn(2, 9, 5, generator=generator)


def test_square_of_positions_is_the_naive_sum():
    x, y = _random_pair()
    naive_square = torch.einsum("nto,nti->ntoi", y, x).square().sum(1)
    output, into = rows_by_position(x, y, rows="both")
    assert torch.allclose(output, naive_square.sum(2))
    assert torch.allclose(into, naive_square.sum(1))
    model, sequences = build(), texts((1 + 1, 2))  # of one label: no cross terms to leave out
    one = fisher_rows(model, sequences, settings=FisherSettings(layers="last:1"))
    other = fisher_rows(
        model, sequences, settings=FisherSettings(layers="last:1", square="position")
    )
    down = next(b for b in one.blocks if b.kind == "down_proj")
    part = slice(down.start, down.stop)
    assert relative(other.values[0, part], one.values[0, part]) < 1e-5


def test_micro_batches_hold_every_sequence_once():
    lengths = [5, 300, 7, 7, 256, 1]
    batches = micro_batches(lengths, batch_tokens=256)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 256 for b in batches)


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_bfloat16_autocast_is_within_a_percent(name):
    """On the same labels: those of the text. Sums are float32, so rounding does not pile up."""
    model, sequences = build(name), texts((70,) * 12)
    settings = FisherSettings(labels="data")
    exact, rough = (
        fisher_rows(
            model, sequences, groups=[n // 3 for n in range(12)], settings=settings, autocast=on
        ).values
        for on in (False, True)
    )
    assert relative(rough, exact) < 1e-2
    pairs = list(itertools.combinations(range(4), 2))
    distances = [[np.linalg.norm(np.log(v[a] / v[b])) for a, b in pairs] for v in (exact, rough)]
    assert np.argsort(distances[0]).tolist() == np.argsort(distances[1]).tolist()


def test_bfloat16_draws_nearly_the_same_labels():
    model, sequences = build(), texts()
    exact = fisher_rows(model, sequences)
    rough = fisher_rows(model, sequences, autocast=True)
    cosine = (exact.values * rough.values).sum() / (
        np.linalg.norm(exact.values) * np.linalg.norm(rough.values)
    )
    assert cosine > 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_what_the_cpu_gives(name):
    """float32 on both; then bfloat16 with float32 sums, on the text's own labels."""
    sequences, groups = texts((70,) * 12), [n // 3 for n in range(12)]
    settings = FisherSettings(labels="data", gradients=512)
    cpu = fisher_rows(build(name), sequences, groups=groups, settings=settings)
    model = build(name).to("cuda")
    for autocast, bound in ((False, 1e-4), (True, 2e-2)):
        gpu = fisher_rows(model, sequences, groups=groups, settings=settings, autocast=autocast)
        assert relative(gpu.values, cpu.values) < bound
        cosine = np.vdot(gpu.values, cpu.values)
        cosine /= np.linalg.norm(gpu.values) * np.linalg.norm(cpu.values)
        assert cosine >= 0.9999
        assert relative(gpu.gradients, cpu.gradients) < 5 * bound


def test_two_linear_layers_have_their_closed_form():
    """Logits V W e(x): the Fisher of W is Vᵀ (diag p − ppᵀ) V on its diagonal, by input token."""
    vocab, width = 5, 3
    torch.manual_seed(2)
    model = Softmax(vocab, width).eval()
    w, v = model.base.blocks[0].weight, model.head.weight
    w.data.mul_(2)
    v.data.mul_(2)
    ids = np.array([0, 1, 2, 3], np.int64)
    p = torch.softmax((v @ w)[:, ids[:-1]], 0).detach()  # (V, T)
    covariance = torch.stack([torch.diag(q) - q[:, None] * q for q in p.T])
    per_token = torch.einsum("vi,tvu,ui->ti", v, covariance, v).detach()
    for k in (1, 4):
        settings = FisherSettings(draws=1_000, contrast=k, seed=k)
        found = fisher_rows(model, [ids], settings=settings).values[0]
        assert np.allclose(found, per_token.sum(0).numpy() / vocab, rtol=0.2)


def test_labels_from_another_head_leave_the_models_own():
    model, sequences = build("llama-tied"), texts()
    other = torch.randn_like(model.lm_head.weight)
    twin = build("llama-tied")
    twin.config.tie_word_embeddings = False
    twin.lm_head.weight = nn.Parameter(other.clone())
    found = fisher_rows(model, sequences, head=other)
    assert relative(found.values, fisher_rows(twin, sequences).values) < 1e-5
