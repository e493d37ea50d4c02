"""The published recipe against a naive transcription of its definition."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from curate.task2vec.published import PublishedSettings, published_rows
from tests.test_fisher import build, texts

PAD = 96


def noisy():
    """A GPT-2 of the shape of the tests, with the dropout that it is published with."""
    torch.manual_seed(3)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=97, n_embd=16, n_layer=2, n_head=2, n_positions=32,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def transcription(model, sequences, settings):
    """The recipe's loops as they stand, row by row and one tensor for all; same random stream."""
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    twin.tie_weights()
    twin.train()
    rows = np.full((len(sequences), settings.row_tokens), PAD)
    seen = np.zeros_like(rows)
    for n, ids in enumerate(sequences):
        kept = ids[: settings.row_tokens]
        rows[n, : len(kept)], seen[n, : len(kept)] = kept, 1
    loader = [
        (torch.tensor(rows[n : n + 8]), torch.tensor(seen[n : n + 8]))
        for n in range(0, len(rows), 8)
    ]
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    torch.manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(twin.lm_head.parameters(), lr=5e-5, eps=1e-8, weight_decay=1e-4)
    for _ in range(settings.epochs):
        for ids, mask in loader:
            optimizer.zero_grad()
            logits = twin(input_ids=ids, attention_mask=mask).logits
            criterion(logits[:, :-1, :].transpose(1, 2), ids[:, 1:]).backward()
            optimizer.step()
    squared, drawn = {n: 0.0 for n, _ in twin.named_parameters()}, []
    for ids, mask in loader:
        logits = twin(input_ids=ids, attention_mask=mask).logits
        label = torch.multinomial(logits.softmax(-1).reshape(-1, 97), 1).reshape(ids.shape)
        drawn.append(label)
        twin.zero_grad()
        criterion(logits[:, :-1, :].transpose(1, 2), label[:, 1:]).backward()
        for name, parameter in twin.named_parameters():
            squared[name] = squared[name] + parameter.grad**2
    found = []
    for name, module in twin.named_modules():
        if hasattr(module, "weight") and name != "lm_head":
            value = (squared[f"{name}.weight"] / len(loader)).detach().numpy()
            found.append(value if value.ndim == 1 else value.mean(tuple(range(1, value.ndim))))
    return np.concatenate(found)


@pytest.mark.parametrize("epochs", [0, 2])
def test_recipe_is_its_transcription_on_the_same_labels(epochs):
    model, sequences = noisy(), texts((12, 40, 5, 20, 9, 33, 7, 16, 30, 21, 3))
    settings = PublishedSettings(row_tokens=20, epochs=epochs)
    found, blocks = published_rows(model, sequences, pad=PAD, settings=settings)
    expected = transcription(model, sequences, settings)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-12)
    assert blocks[-1].stop == len(found)
    assert blocks[0].name == "transformer.wte"
    assert blocks[0].stop == 97


def test_dimension_is_the_published_one_for_gpt2():
    """134,993 rows: counted from the shapes, Conv1D by input unit."""
    config = GPT2Config()
    block = 4 * config.n_embd + 2 * config.n_embd + 4 * config.n_embd - config.n_embd
    assert config.vocab_size + config.n_positions + 12 * block + config.n_embd == 134_993
    found, blocks = published_rows(
        noisy(), texts((9, 9)), pad=PAD, settings=PublishedSettings(row_tokens=20, epochs=0)
    )
    assert len(found) == 97 + 32 + 2 * 9 * 16 + 16
    assert [b.stop - b.start for b in blocks if b.kind == "c_attn"] == [16, 16]


def test_every_fault_is_a_switch():
    model, sequences = noisy(), texts((12, 40, 5, 20, 9, 33))
    plain = {"row_tokens": 20, "epochs": 0}
    one, _ = published_rows(model, sequences, pad=PAD, settings=PublishedSettings(**plain))
    for change in (
        {"batch": 1}, {"epochs": 1}, {"shifted": False}, {"count_pads": False},
        {"dropout": False}, {"conv_inputs": False}, {"seed": 1},
    ):  # fmt: skip
        settings = PublishedSettings(**{**plain, **change})
        other, _ = published_rows(model, sequences, pad=PAD, settings=settings)
        assert len(other) != len(one) or not np.allclose(other, one, rtol=1e-3), change


def test_drift_moves_the_model_and_the_recipe_alone_does_not():
    model, sequences = noisy(), texts((12, 40))
    before = model.lm_head.weight.clone()
    settings = PublishedSettings(row_tokens=20, epochs=1)
    published_rows(model, sequences, pad=PAD, settings=settings)
    assert torch.equal(model.lm_head.weight, before)
    assert all(p.grad is None for p in model.parameters())
    drifting = PublishedSettings(row_tokens=20, epochs=1, drift=True)
    published_rows(model, sequences, pad=PAD, settings=drifting)
    assert not torch.equal(model.lm_head.weight, before)


def test_without_its_faults_it_is_the_engine():
    """One row a batch, right labels, no pads, no dropout, no tuning: the same expectation."""
    from curate.task2vec.fisher import fisher_rows
    from curate.task2vec.quantity import FisherSettings

    model, sequences = build("llama"), texts((20, 14))
    mean = np.mean([_definition(model, sequences, seed) for seed in range(60)], axis=0)
    engine = fisher_rows(model, sequences, settings=FisherSettings(draws=60))
    expected = engine.values[0]
    assert abs(mean.sum() / expected.sum() - 1) < 0.15
    assert np.corrcoef(mean, expected)[0, 1] > 0.95


def _definition(model, sequences, seed):
    """The recipe, switched to the definition, in the engine's coordinates: sums, not means."""
    settings = PublishedSettings(
        row_tokens=20, batch=1, epochs=0, shifted=False, count_pads=False, dropout=False, seed=seed
    )
    found = [
        published_rows(model, [ids], pad=PAD, settings=settings) for ids in sequences
    ]  # fmt: skip
    total = sum(
        values * (len(ids) - 1) ** 2 for ids, (values, _) in zip(sequences, found, strict=True)
    ) / len(sequences)
    blocks = found[0][1]
    return np.concatenate([total[b.start : b.stop] for b in blocks if b.kind.endswith("proj")])


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="no texts"):
        published_rows(noisy(), [], pad=PAD)


def test_squares_of_bfloat16_gradients_are_summed_in_float32(monkeypatch):
    """A GPU holds matrices in bfloat16, whose sums of many mini-batches are off by percents."""
    model = noisy().to(torch.bfloat16)
    monkeypatch.setattr(torch, "multinomial", lambda p, n: p.argmax(-1, keepdim=True))
    settings = PublishedSettings(row_tokens=8, batch=1, epochs=0, dropout=False)
    one, many = (published_rows(model, texts((8,)) * n, pad=PAD, settings=settings)[0]
                 for n in (1, 60))  # fmt: skip
    assert np.allclose(many, one, rtol=1e-4)
