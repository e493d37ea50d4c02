"""The small model: what it sees, what it learns, and that nothing but the settings decides."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from curate.verification.blocks import pack_blocks
from curate.verification.evaluate import item_nats
from curate.verification.optimiser import Muon, clip_gradients
from curate.verification.small_model import SHAPES, SmallModel
from curate.verification.train import DivergedError, TrainSettings, train_model, train_models

EOS, VOCAB = 0, 40
SETTINGS = TrainSettings(
    size="tiny",
    vocab=VOCAB,
    eos=EOS,
    tokens=6_000,
    block_tokens=32,
    batch_tokens=256,
    learning_rate=3e-3,
    seed=1,
)


def texts(n=60, seed=0):
    """Documents in which each token is the one before plus one: nothing to guess but the first."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 60, size=n)
    firsts = rng.integers(1, VOCAB, size=n)
    return [
        ((first - 1 + np.arange(length)) % (VOCAB - 1) + 1).astype(np.int32)
        for first, length in zip(firsts, lengths, strict=True)
    ]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(one_thread):
    return train_model(texts(), SETTINGS)


@pytest.mark.parametrize("size", SHAPES)
def test_a_size_is_the_parameters_of_its_blocks(size):
    n_blocks, width, n_heads = SHAPES[size]
    expected = {"tiny": 0.2}.get(size) or float(size.removesuffix("M"))
    assert 12 * width**2 * n_blocks / 1e6 == pytest.approx(expected, rel=0.12)
    assert width % n_heads == 0 and (width // n_heads) % 2 == 0


def test_a_pass_holds_every_document_once_after_its_eos():
    sizes = np.random.default_rng(1).integers(1, 30, size=15)
    sizes = np.append(sizes, 8 + -(sizes.sum() + 16) % 8)  # the pass fills its blocks
    documents = np.split(np.arange(1, sizes.sum() + 1, dtype=np.int32), np.cumsum(sizes)[:-1])
    n_tokens = int(sizes.sum()) + len(documents)
    data = pack_blocks(documents, eos=EOS, block_tokens=8, tokens=n_tokens, seed=3)
    np.testing.assert_array_equal(
        np.sort(data.ids.ravel()), np.sort([EOS] * len(documents) + [*range(1, sizes.sum() + 1)])
    )
    np.testing.assert_array_equal(data.ids[:, 1:], data.labels[:, :-1])
    firsts, lasts = {int(d[0]) for d in documents}, {int(d[-1]) for d in documents}
    for token, label in zip(data.ids.ravel().tolist(), data.labels.ravel().tolist(), strict=True):
        if token == EOS:
            assert label in firsts
        else:
            assert label == (EOS if token in lasts else token + 1)


def test_a_long_document_does_not_fill_steps_in_a_row():
    documents = [np.full(800, n, np.int32) for n in range(1, 11)]
    data = pack_blocks(documents, eos=EOS, block_tokens=8, tokens=8_000, seed=0)
    main_token = np.median(data.ids, axis=1)
    assert np.mean(main_token[1:] == main_token[:-1]) < 0.2  # in order it would be 0.99


def test_starts_name_the_first_position_of_the_document_in_the_block():
    documents = [np.array([1, 2, 3], np.int32)] * 4
    data = pack_blocks(documents, eos=EOS, block_tokens=6, tokens=12, seed=0)
    first = int(np.flatnonzero(data.ids[:, 1] == 1)[0])
    np.testing.assert_array_equal(data.ids[first], [0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(data.starts[first], [0, 0, 0, 0, 4, 4])
    np.testing.assert_array_equal(data.starts[1 - first], [0, 0, 2, 2, 2, 2])


def test_a_token_of_the_text_that_equals_eos_starts_no_document():
    data = pack_blocks([np.array([5, EOS, 6], np.int32)], eos=EOS, block_tokens=4, tokens=4, seed=0)
    np.testing.assert_array_equal(data.starts, [[0, 0, 0, 0]])


def test_passes_differ_in_order_and_seeds_do_too():
    documents = texts(30)
    n_tokens = 2 * (sum(map(len, documents)) + len(documents))
    orders = []
    for seed in (0, 1):
        ids = pack_blocks(documents, eos=EOS, block_tokens=4, tokens=n_tokens, seed=seed).ids
        orders += np.array_split(ids.ravel()[: n_tokens // 2 * 2], 2)
    assert len({tuple(order[:100]) for order in orders}) == 4


def test_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        pack_blocks([np.zeros(0, np.int32)], eos=EOS, block_tokens=4, tokens=4, seed=0)


def test_positions_see_only_what_came_before_in_their_document(trained):
    model, _ = trained
    ids = torch.randint(1, VOCAB, (1, 1, 12), generator=torch.Generator().manual_seed(0))
    starts = torch.tensor([[[0] * 5 + [5] * 7]])
    with torch.no_grad():
        before = model(ids, starts)
        other = ids.clone()
        other[0, 0, 3] += 1  # in the first document, at position 3
        changed = (model(other, starts) - before).abs().amax(-1)[0, 0] > 1e-6
        alone = model(ids[..., 5:], torch.zeros(1, 1, 7, dtype=torch.long))
    assert changed.tolist() == [False] * 3 + [True] * 2 + [False] * 7
    torch.testing.assert_close(alone[0, 0], before[0, 0, 5:], rtol=1e-4, atol=1e-5)


def test_the_head_loss_is_cross_entropy_and_so_is_its_gradient():
    model = SmallModel("tiny", vocab=VOCAB, seeds=[0])
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 2, 7, 96, generator=generator).requires_grad_()
    labels = torch.randint(0, VOCAB, (1, 2, 7), generator=generator)
    weights = model.embedding
    logits = F.linear(hidden, weights[0]).flatten(0, 2)
    expected = F.cross_entropy(logits, labels.flatten(), reduction="none")
    found = model.nats(hidden, labels)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad(found.sum() / 3, [hidden, weights])
    theirs = torch.autograd.grad(expected.sum() / 3, [hidden, weights])
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def test_training_learns_what_there_is_to_learn(trained):
    _, curve = trained
    assert curve[0][1] == pytest.approx(np.log(VOCAB), abs=0.3)
    assert curve[-1][1] < 1.5
    assert curve[-1][0] == 6_000 // 32 * 32


def test_a_run_is_decided_by_its_seed(trained):
    again, other = (
        train_model(texts(), dataclasses.replace(SETTINGS, tokens=1_000, seed=seed))[1]
        for seed in (1, 2)
    )
    assert again == train_model(texts(), dataclasses.replace(SETTINGS, tokens=1_000))[1]
    assert again != other


def test_a_run_that_goes_on_from_any_step_ends_the_same():
    short = dataclasses.replace(SETTINGS, tokens=2_000)
    kept = []
    model, curve = train_model(texts(), short, on_step=lambda now: kept.append(now.snapshot(0)))
    assert [snapshot.step for snapshot in kept] == list(range(1, len(curve) + 1))
    for snapshot in (kept[0], kept[3], kept[-1]):
        again, curve_again = train_model(texts(), short, resume=snapshot)
        assert curve_again == curve
        for one, other in zip(model.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_number_of_threads_does_not_change_a_run():
    short = dataclasses.replace(SETTINGS, tokens=2_000)
    curves = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        curves.append(train_model(texts(), short)[1])
    torch.set_num_threads(1)
    assert curves[0] == curves[1]


def several(n=3, **changed):
    settings = [dataclasses.replace(SETTINGS, tokens=2_000, seed=n, **changed) for n in range(n)]
    return [texts(seed=n) for n in range(n)], settings


def test_models_side_by_side_are_those_trained_alone():
    documents, settings = several()
    model, curves = train_models(documents, settings)
    nats = item_nats(model, texts(9, seed=5), eos=EOS, block_tokens=32)
    for number, (own, plan) in enumerate(zip(documents, settings, strict=True)):
        alone, curve = train_model(own, plan)
        np.testing.assert_allclose(curves[number], curve, rtol=2e-3)
        (own_nats,) = item_nats(alone, texts(9, seed=5), eos=EOS, block_tokens=32)
        np.testing.assert_allclose(nats[number], own_nats, rtol=5e-3)
        start = SmallModel("tiny", vocab=VOCAB, seeds=[plan.seed]).blocks[0].qkv[0]
        together = SmallModel("tiny", vocab=VOCAB, seeds=range(3)).blocks[0].qkv[number]
        assert torch.equal(start, together)


def test_runs_side_by_side_go_on_from_a_step_together_or_alone():
    documents, settings = several()
    kept = []
    _, curves = train_models(
        documents,
        settings,
        on_step=lambda now: kept.append([now.snapshot(run) for run in range(3)]),
    )
    _, again = train_models(documents, settings, resume=kept[3])
    assert again == curves
    _, alone = train_model(documents[1], settings[1], resume=kept[3][1])
    np.testing.assert_allclose(alone, curves[1], rtol=2e-3)


def test_which_of_several_runs_diverged_is_said():
    documents, settings = several()
    kept = []
    train_models(
        documents, settings, on_step=lambda now: kept.append([now.snapshot(n) for n in range(3)])
    )
    for tensor in kept[0][1].tensors.values():
        tensor.fill_(torch.inf)
    with pytest.raises(DivergedError, match="at step 2 of") as caught:
        train_models(documents, settings, resume=kept[0])
    assert caught.value.run == 1


def test_matrices_side_by_side_move_as_torch_moves_each():
    generator = torch.Generator().manual_seed(0)
    stacked = [torch.randn(3, *shape, generator=generator) for shape in [(8, 20), (20, 8), (8, 20)]]
    ours = [torch.nn.Parameter(each.clone()) for each in stacked]
    theirs = [[torch.nn.Parameter(one.clone()) for one in each] for each in stacked]
    mine = Muon(ours, lr=0.02)
    reference = torch.optim.Muon(
        [one for each in theirs for one in each],
        lr=0.02,
        weight_decay=0.1,
        adjust_lr_fn="match_rms_adamw",
    )
    for _ in range(3):
        for each, ones in zip(ours, theirs, strict=True):
            each.grad = torch.randn(each.shape, generator=generator)
            for one, gradient in zip(ones, each.grad, strict=True):
                one.grad = gradient.clone()
        mine.step()
        reference.step()
    for each, ones in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            each.detach(), torch.stack(list(ones)).detach(), rtol=1e-2, atol=2e-3
        )


def test_gradients_are_clipped_model_by_model():
    model = SmallModel("tiny", vocab=VOCAB, seeds=[0, 1])
    for weights in model.parameters():
        weights.grad = torch.ones_like(weights) * torch.tensor([1e-6, 1.0]).view(
            2, *[1] * (weights.ndim - 1)
        )
    clip_gradients(model, 1.0)
    squares = sum(weights.grad.square().flatten(1).sum(1) for weights in model.parameters())
    n_weights = sum(weights[0].numel() for weights in model.parameters())
    torch.testing.assert_close(squares.sqrt(), torch.tensor([1e-6 * n_weights**0.5, 1.0]))


@pytest.mark.slow  # the compiler takes a minute
def test_a_compiled_model_is_trained_to_the_same_numbers():
    documents, settings = several(2)
    _, curves = train_models(documents, settings)
    _, compiled = train_models(documents, settings, compiled=True)
    np.testing.assert_allclose(compiled, curves, rtol=2e-3)


def test_divergence_is_said():
    wild = dataclasses.replace(SETTINGS, learning_rate=1e4, tokens=3_000)
    with pytest.raises(FloatingPointError, match=r"at step \d+ of \d+"):
        train_model(texts(), wild)


def test_item_losses_are_those_of_each_item_alone(trained):
    model, _ = trained
    items = texts(9, seed=5)
    (together,) = item_nats(model, items, eos=EOS, block_tokens=32)
    (small,) = item_nats(model, items, eos=EOS, block_tokens=32, batch_tokens=32)
    alone = [item_nats(model, [item], eos=EOS, block_tokens=32)[0, 0] for item in items]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(small, alone, rtol=1e-5)


def test_the_first_token_of_an_item_counts(trained):
    model, _ = trained
    item = np.array([7], np.int32)
    with torch.no_grad():
        hidden = model(torch.tensor([[[EOS]]]), torch.zeros(1, 1, 1, dtype=torch.long))
        logits = F.linear(hidden[0, 0, 0], model.embedding[0])
        expected = -logits.log_softmax(-1)[7]
    assert item_nats(model, [item], eos=EOS, block_tokens=8)[0, 0] == pytest.approx(float(expected))


def test_an_item_without_tokens_is_refused(trained):
    with pytest.raises(ValueError, match="item 0"):
        item_nats(trained[0], [np.zeros(0, np.int32)], eos=EOS, block_tokens=8)
