"""The engine on models of other makers: each as transformers builds it, nothing told about it."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import transformers

from curate.task2vec.fisher import fisher_rows
from curate.task2vec.forward import find_logit_map, keeps_packed_apart
from curate.task2vec.head import DECAY, RATE, tune_head
from curate.task2vec.labels import LogitMap
from curate.task2vec.quantity import FisherSettings
from tests.test_fisher import VOCAB, naive, relative, texts

SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LIKE_LLAMA = {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 2,
              "max_position_embeddings": 160}  # fmt: skip
CAPPED = {**LIKE_LLAMA, "head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 64,
          "tie_word_embeddings": False}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VECTORS = ("norms", "biases")
SEQUENCES = (23, 9, 2)


@dataclass(frozen=True)
class Kind:
    """One kind of model, and what of it the engine is asked for."""

    name: str  # of its classes
    config: dict
    also: tuple = VECTORS
    settings: dict = field(default_factory=dict)


KINDS = {
    "qwen2": Kind("Qwen2", LIKE_LLAMA),  # biases of queries, keys and values
    "qwen3": Kind("Qwen3", {**LIKE_LLAMA, "head_dim": 8}),  # norms of queries and keys
    "phi-norms": Kind(  # … behind their transpose
        "Phi",
        {**LIKE_LLAMA, "num_attention_heads": 8, "num_key_value_heads": 8, "qk_layernorm": True},
        settings={"labels": "data"},
        also=("norms",),
    ),
    "phi3": Kind("Phi3", LIKE_LLAMA),  # queries, keys and values in one matrix
    "olmo2": Kind("Olmo2", LIKE_LLAMA),
    "gemma2": Kind(  # capped logits; norms before and after
        "Gemma2", CAPPED, also=(*VECTORS, "head"), settings={"draws": 2}
    ),
    "gemma2-one-label": Kind("Gemma2", CAPPED, settings={"contrast": 1}),
    "gemma3": Kind("Gemma3", {**LIKE_LLAMA, "head_dim": 8, "sliding_window": 64}),
    "cohere": Kind("Cohere", {**LIKE_LLAMA, "logit_scale": 0.25}),  # parallel, scaled logits, tied
    "cohere-norms": Kind("Cohere", {**LIKE_LLAMA, "use_qk_norm": True}),  # of (heads, width)
    "granite": Kind(  # divided logits
        "Granite",
        {**LIKE_LLAMA, "logits_scaling": 4.0, "residual_multiplier": 0.5},
        also=(*VECTORS, "embeddings", "head"),
    ),
    "stablelm": Kind("StableLm", {**LIKE_LLAMA, "qk_layernorm": True}),
    "falcon": Kind("Falcon", {**SHAPE, "num_kv_heads": 1, "parallel_attn": True}),
    "gptj": Kind(
        "GPTJ",
        {
            "vocab_size": VOCAB,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 160,
            "rotary_dim": 4,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "opt": Kind(
        "OPT", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 160}
    ),
    "bloom": Kind(
        "Bloom",
        {
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "qwen2-experts": Kind(  # and one that every token takes
        "Qwen2Moe", {**LIKE_LLAMA, **EXPERTS, "shared_expert_intermediate_size": 24}
    ),
    "gpt-oss": Kind(  # experts (in, out), biases of experts
        "GptOss",
        {
            **LIKE_LLAMA,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 64,
        },
        also=(),
    ),
    "deepseek": Kind(  # low-rank attention; one dense block, one of experts
        "DeepseekV3",
        {
            **LIKE_LLAMA,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
}


OTHERS = {
    "mistral": Kind("Mistral", {**LIKE_LLAMA, "sliding_window": 8}),
    "phi": Kind("Phi", {**LIKE_LLAMA, "num_key_value_heads": 4}),  # a bias of the head
    "recurrent-gemma": Kind(
        "RecurrentGemma",
        {**SHAPE, "num_hidden_layers": 3, "intermediate_size": 48, "logits_soft_cap": 2.0},
    ),
    "mpt": Kind(
        "Mpt",
        {
            "vocab_size": VOCAB,
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 1,
            "logit_scale": "inv_sqrt_d_model",
        },
    ),
}


def build(name, **changed):
    """A small model of this kind, sharper than at initialisation, so that labels differ."""
    kind = (KINDS | OTHERS)[name]
    torch.manual_seed(0)
    config_class = {"Gemma3": "Gemma3Text"}.get(kind.name, kind.name)
    config = getattr(transformers, f"{config_class}Config")(**{**kind.config, **changed})
    model = getattr(transformers, f"{kind.name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
        if (bias := getattr(model.get_output_embeddings(), "bias", None)) is not None:
            bias.normal_()
    return model


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_is_its_definition(name):
    kind, model, sequences = KINDS[name], build(name), texts(SEQUENCES)
    settings = FisherSettings(rows="both", also=kind.also, **kind.settings)
    found = fisher_rows(model, sequences, settings=settings)
    expected = naive(model, sequences, settings)
    assert relative(found.values[0], expected) < 1e-5
    for block in found.blocks:
        part = slice(block.start, block.stop)
        if np.linalg.norm(expected[part]) > 1e-9 * np.linalg.norm(expected):
            assert relative(found.values[0, part], expected[part]) < 3e-5, block.name


@pytest.mark.parametrize("name", [*KINDS, "mistral", "phi"])
def test_loss_and_hidden_state_are_the_models_own(name):
    """What `perplexity` and `embedding` rank by; in rows with others where that is possible."""
    model, sequences = build(name), texts(SEQUENCES)
    nats, hidden = 0.0, 0.0
    for ids in sequences:
        there = torch.from_numpy(ids).long()[None]
        with torch.no_grad():
            out = model(input_ids=there, labels=there, output_hidden_states=True)
        nats += out.loss.item() * (len(ids) - 1)
        hidden += out.hidden_states[-1][0].sum(0).numpy()
    for packed in {False, keeps_packed_apart(model, longest=max(SEQUENCES))}:
        settings = FisherSettings(labels="data")
        found = fisher_rows(model, sequences, settings=settings, packed=packed)
        assert found.loss == pytest.approx(nats / (sum(SEQUENCES) - len(SEQUENCES)), rel=1e-5)
        assert relative(found.hidden[0], hidden / sum(SEQUENCES)) < 1e-5


@pytest.mark.parametrize(
    "name", ["qwen3", "phi-norms", "phi3", "gemma2", "cohere-norms", "stablelm", "falcon", "opt"]
)
@pytest.mark.parametrize("lengths", [(9, 5, 2), (8, 4, 4)])
def test_every_kind_of_attention_is_the_same_packed(name, lengths):
    """Once as many tokens a row as heads, so that the two axes cannot be told by their size."""
    kind, model, sequences = KINDS[name], build(name), texts(lengths)
    settings = FisherSettings(also=kind.also, **kind.settings)
    assert keeps_packed_apart(model, longest=max(lengths))
    alone = fisher_rows(model, sequences, settings=settings)
    packed = fisher_rows(model, sequences, settings=settings, packed=True)
    for block in alone.blocks:
        part = slice(block.start, block.stop)
        if np.linalg.norm(alone.values[:, part]) > 1e-9 * np.linalg.norm(alone.values):
            assert relative(packed.values[:, part], alone.values[:, part]) < 1e-4, block.name


def test_a_model_that_takes_no_packed_rows_is_given_none():
    """Bloom makes its positions of the mask and ends in an error over one of four axes."""
    model, sequences = build("bloom"), texts((9, 4, 2))
    assert not keeps_packed_apart(model, longest=9)
    with pytest.raises(ValueError, match="does not keep packed sequences apart"):
        fisher_rows(model, sequences, packed=True)


def test_a_lack_of_memory_is_not_taken_for_an_answer(monkeypatch):
    model = build("qwen2")

    def short(*given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.model, "forward", short)
    with pytest.raises(torch.OutOfMemoryError):
        keeps_packed_apart(model, longest=9)


def test_sequences_beyond_a_window_share_no_row():
    """The mask of a packed row takes the window's place: one would see further than alone."""
    model = build("gemma3", sliding_window=16)
    assert keeps_packed_apart(model, longest=16)
    assert not keeps_packed_apart(model, longest=17)
    with pytest.raises(ValueError, match="does not keep packed sequences apart"):
        fisher_rows(model, texts((20, 9)), packed=True)


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("cohere", {}, LogitMap(scale=0.25)),
        ("granite", {}, LogitMap(scale=0.25)),
        ("gemma2", {}, LogitMap(cap=2.0)),
        ("gemma2", {"final_logit_softcapping": 30.0}, LogitMap(cap=30.0)),  # hardly any change
        ("gemma2", {"final_logit_softcapping": None}, LogitMap()),
        ("recurrent-gemma", {}, LogitMap(cap=2.0)),
        ("mpt", {}, LogitMap()),  # its configuration names a scale, which is not used
    ],
)
@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_done_to_logits_is_found(name, changed, expected, autocast):
    model = build(name, **changed)
    assert find_logit_map(model, texts((9,))[0], autocast=autocast) == expected


@pytest.mark.parametrize("change", [lambda x: x + 0.3, lambda x: 1.01 * x])
def test_logits_changed_in_another_way_are_refused(change):
    model = build("qwen2")
    plain = model.forward

    def changed(**given):
        output = plain(**given)
        output.logits = change(output.logits)
        return output

    model.forward = changed
    with pytest.raises(ValueError, match="Qwen2ForCausalLM changes its last hidden state or its"):
        fisher_rows(model, texts((9, 5)))


@pytest.mark.parametrize("name", ["gemma2", "cohere"])
def test_a_head_is_tuned_on_the_logits_of_the_model(name):
    """The head of the model itself, trained with the network before it frozen."""
    sequences = texts((23,) * 4)  # one step an epoch
    twin = build(name, tie_word_embeddings=False)
    model = build(name, tie_word_embeddings=False)
    ids = torch.from_numpy(np.stack(sequences)).long()
    optimizer = torch.optim.AdamW([twin.lm_head.weight], lr=RATE, eps=1e-8, weight_decay=DECAY)
    for _ in range(3):
        optimizer.zero_grad()
        twin(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    head = tune_head(model, sequences, epochs=3)
    assert (head - model.lm_head.weight).abs().max() > RATE
    assert torch.allclose(head, twin.lm_head.weight, rtol=0, atol=RATE / 100)
    found = fisher_rows(model, sequences, head=head)
    assert found.loss == pytest.approx(twin(input_ids=ids, labels=ids).loss.item(), rel=1e-4)


def test_a_model_named_for_its_sibling_with_images_is_read():
    """Its base_model_prefix names a part that it does not have."""
    config = transformers.Llama4TextConfig(
        **{**LIKE_LLAMA, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 4},
        moe_layers=[],
    )
    torch.manual_seed(0)
    model = transformers.Llama4ForCausalLM(config).eval()
    sequences = texts((9, 5))
    settings = FisherSettings(labels="data")
    found = fisher_rows(model, sequences, settings=settings)
    assert relative(found.values[0], naive(model, sequences, settings)) < 1e-5


def test_a_model_that_reads_images_too_is_read_by_its_text():
    """Its configuration holds one of its text and one of its images."""
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=KINDS["gemma3"].config,
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                       "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        image_token_index=90, boi_token_index=91, eoi_token_index=92, mm_tokens_per_image=1,
    )  # fmt: skip
    whole = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert isinstance(whole, transformers.Gemma3ForConditionalGeneration)
    text = build("gemma3")
    text.model.load_state_dict(whole.model.language_model.state_dict())
    sequences = texts((9, 5), vocab=80)
    found, expected = (fisher_rows(model, sequences, packed=True) for model in (whole, text))
    assert [block.layer for block in found.blocks] == [block.layer for block in expected.blocks]
    assert relative(found.values, expected.values) < 1e-6


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("Mamba", {**SHAPE, "state_size": 4}, r"mixer: MambaMixer holds weights \(A_log\)"),
        ("Rwkv", {**SHAPE, "attention_hidden_size": 32}, "attention: RwkvSelfAttention holds"),
        (
            "RecurrentGemma",
            {**LIKE_LLAMA, "lru_width": 32, "block_types": ["recurrent"]},
            "conv_1d: Conv1d holds weights",
        ),
        (
            "Bart",
            {"vocab_size": VOCAB, "d_model": 32, "decoder_layers": 2, "encoder_layers": 2,
             "decoder_ffn_dim": 48, "decoder_attention_heads": 4, "bos_token_id": 0,
             "eos_token_id": 0, "pad_token_id": 0},
            "encoder_attn.k_proj got no gradient: the forward pass does not use it",
        ),
    ],
)  # fmt: skip
def test_what_is_not_known_is_named(name, config, said):
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**config)
    )
    with pytest.raises(ValueError, match=said):
        fisher_rows(model.eval(), texts((9, 5)))


def test_biases_of_experts_are_named_where_biases_are_asked_for():
    with pytest.raises(ValueError, match="router: GptOssTopKRouter holds bias, which are biases"):
        fisher_rows(build("gpt-oss"), texts((9,)), settings=FisherSettings(also=("biases",)))
