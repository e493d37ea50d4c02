"""Train the small causal language model that `curate` ships as its built-in probe.

    python examples/train_probe.py --data DATA --out FOLDER --minutes 45

DATA holds `corpora/NAME.jsonl.zst` ({"id", "text"} a line) and `targets/NAME/SPLIT.jsonl`. The
learning rate follows the clock, so a run of any length ends decayed. Read from top to bottom.
"""

import argparse
import ast
import itertools
import json
import math
import os
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from timeit import timeit

import numpy as np
import torch
import zstandard
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EOT = "<|endoftext|>"
# Domain: (corpus file, pattern of its ids or packages, licence). Share-alike, copyleft and unclear
# parts stay out, so that the weights can be given away under Apache-2.0.
DOMAINS = {
    "fiction": ("fiction_gutenberg", "", "public domain (Project Gutenberg)"),
    "drama": ("shakespeare", "", "public domain (Project Gutenberg)"),
    "patents": ("patents", "", "US patent texts, not copyrighted"),
    "biomedical": ("pubmed_abstracts", "", "CC BY (Europe PMC, open access)"),
    "lean3": ("formal_lean3", "", "Apache-2.0 (mathlib)"),
    "lean4": ("formal_lean4", "", "Apache-2.0 (Lean 4 projects)"),
    "lean_docstrings": ("af_docstring_lean", "", "Apache-2.0 (mathlib, Lean 4 projects)"),
    "metamath": ("formal_metamath", "", "CC0-1.0 (set.mm)"),
    "python_code": ("code_python", "", "PSF-2.0, BSD-3-Clause, MIT, Apache-2.0"),
    "logic_latex": ("math_latex", "OpenLogicProject", "CC BY 4.0 (Open Logic Project)"),
    "manuals": ("tech_docs", "python3|postgresql", "PSF-2.0, PostgreSQL"),
    "science_docs": ("", "numpy scipy sympy networkx sklearn", "BSD-3-Clause (docstrings)"),
}
CARD = """# Built-in probe of curate

A causal language model of {parameters:,} parameters ({layers} Llama layers of width {dim}, tied
embeddings, byte-level BPE of {vocab:,} tokens): a probe for Task2Vec, not a text generator.
Weights: Apache-2.0, stored in half precision, to be used in single precision.

{steps:,} steps, {tokens:,} tokens in blocks of {block}, {used:.1f} minutes on {machine}
({speed:,.0f} tokens/s), {optimiser}, learning rate {lr}, {kind}.
Command: `python examples/train_probe.py --data DATA --out OUT --minutes {minutes:g} --dim {dim}
--layers {layers} --block {block} --batch {batch} --lr {lr}`

Documents that share a run of 13 words or signs with any target item (ProofNet, miniF2F, GSM8K,
MATH) were taken out first (column "out"). One document in 50 is held out for the losses.

| domain | licence | documents | out | training tokens | nats/token | bits/byte |
|---|---|---:|---:|---:|---:|---:|
"""
Docs = list[tuple[str, str]]


# ---- data and decontamination ----------------------------------------------------------------
def read_corpus(path: Path, pattern: str) -> Docs:
    """Reads the (id, text) pairs of one corpus whose id matches a pattern."""
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return [(row["id"], row["text"]) for row in rows if re.search(pattern, row["id"])]


def installed_docstrings(packages: str) -> Docs:
    """Gathers the longer docstrings of installed libraries, one document a module."""
    docs, kinds = [], (ast.Module, ast.ClassDef, ast.FunctionDef)
    site = Path(np.__file__).parents[1]
    paths = (path for name in packages.split() for path in (site / name).rglob("*.py"))
    for path in sorted(path for path in paths if "tests" not in path.parts):
        nodes = ast.walk(ast.parse(path.read_text("utf-8", errors="replace")))
        found = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
        text = "\n\n".join(doc for doc in found if doc and len(doc) > 300)
        docs += [(str(path.relative_to(site)), text)] if text else []
    return docs


def ngrams(text: str) -> set[int]:
    """Hashes every 13-gram of lower-cased words and signs of a text into 64 bits."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    ids = np.fromiter(map(hash, words), np.int64).view(np.uint64)
    total = np.zeros(max(0, len(ids) - 12), np.uint64)
    for k in range(13):
        total = total * np.uint64(0x9E3779B97F4A7C15) + ids[k : k + len(total)]
    return set(total.tolist())


def target_ngrams(folder: Path) -> set[int]:
    """Collects the 13-gram hashes of every text field of every target item."""
    lines = (line for path in folder.glob("*/*.jsonl") for line in path.read_bytes().splitlines())
    fields = (value for line in lines for value in json.loads(line).values())
    return set().union(*(ngrams(field) for field in fields if isinstance(field, str)))


# ---- tokenizer and blocks --------------------------------------------------------------------
def train_tokenizer(domains: list[Docs], vocab: int) -> Tokenizer:
    """Trains a byte-level BPE on at most two million characters of each domain."""
    tokenizer, level = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level])
    tokenizer.decoder = decoders.ByteLevel()
    options = {"special_tokens": [EOT], "initial_alphabet": level.alphabet()}
    trainer = trainers.BpeTrainer(vocab_size=vocab, show_progress=False, **options)
    sample = ["\n".join(text for _, text in docs)[:2_000_000] for docs in domains]
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def prepare(data: Path, work: Path, vocab: int) -> None:
    """Writes tokenizer.json, train.npy, heldout.npy and data.json into the work folder."""
    leaked, info = target_ngrams(data / "targets"), {}
    splits: dict[str, dict[str, Docs]] = {"train": {}, "heldout": {}}
    for name, (corpus, pattern, _) in DOMAINS.items():
        path = data / "corpora" / f"{corpus}.jsonl.zst"
        if corpus and not path.exists():
            continue
        docs = read_corpus(path, pattern) if corpus else installed_docstrings(pattern)
        kept = [doc for doc in docs if leaked.isdisjoint(ngrams(doc[1]))]
        # Two corpora are cut from the same Lean files: a file goes whole to one side.
        keys = [re.sub(r"(\.lean).*", r"\1", doc_id) for doc_id, _ in kept]
        held = [zlib.crc32(key.encode()) % 50 == 0 for key in keys]
        splits["train"][name] = [doc for doc, out in zip(kept, held, strict=True) if not out]
        splits["heldout"][name] = [doc for doc, out in zip(kept, held, strict=True) if out]
        info[name] = {"docs": len(docs), "removed": len(docs) - len(kept)}
        print(name, info[name], flush=True)
    tokenizer = train_tokenizer(list(splits["train"].values()), vocab)
    tokenizer.save(str(work / "tokenizer.json"))
    for split, domains in splits.items():
        arrays = []
        for name, docs in domains.items():
            codes = tokenizer.encode_batch_fast([text for _, text in docs])
            flat = itertools.chain.from_iterable([*code.ids, 0] for code in codes)
            arrays.append(np.fromiter(flat, np.uint16))
            size = sum(len(text.encode()) for _, text in docs)
            info[name] |= {split: len(arrays[-1]), f"{split}_bytes": size}
        np.save(work / f"{split}.npy", np.concatenate(arrays))
    (work / "data.json").write_text(json.dumps(info, indent=1))


def block_starts(sizes: list[int], block: int, batch: int) -> Iterator[np.ndarray]:
    """Yields batches for ever; each epoch has equal domain shares, small domains once through."""
    share, offsets = int(np.median(sizes)) // block, np.cumsum([0, *sizes])
    for epoch in itertools.count():
        rng = np.random.default_rng([1234, epoch])
        order = [
            rng.permutation(np.arange(first + rng.integers(block), last - block, block))[:share]
            for first, last in itertools.pairwise(offsets)
        ]
        shuffled = rng.permutation(np.concatenate(order))
        yield from shuffled[: len(shuffled) // batch * batch].reshape(-1, batch)


# ---- model and optimisers --------------------------------------------------------------------
def build_model(args: argparse.Namespace) -> LlamaForCausalLM:
    """Builds a Llama-style model with tied embeddings and heads of 64 (or 32) channels."""
    config = LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.dim, num_hidden_layers=args.layers,
        intermediate_size=-(-8 * args.dim // 192) * 64, tie_word_embeddings=True, use_cache=False,
        num_attention_heads=args.dim // (32 if args.dim % 64 else 64),
        max_position_embeddings=4 * args.block, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        dtype="float32", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(1234)
    return LlamaForCausalLM(config)


def build_optimisers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Gives hidden matrices to Muon and the rest to AdamW, or all to AdamW without Muon."""
    hidden = [p for p in model.model.layers.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2 or p is model.lm_head.weight]
    optimiser = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    if hasattr(torch.optim, "Muon"):
        muon = torch.optim.Muon(hidden, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        return [muon, optimiser]
    print("torch.optim.Muon is missing: AdamW trains every weight", flush=True)
    optimiser.add_param_group({"params": hidden, "weight_decay": 0.1})
    return [optimiser]


# ---- evaluation and export -------------------------------------------------------------------
@torch.no_grad()
def evaluate(model: LlamaForCausalLM, held: np.ndarray, info: dict, block: int, limit: int) -> dict:
    """Measures held-out (nats per token, bits per byte) of every domain."""
    table, offset = {}, 0
    for name, row in info.items():
        stream = np.append(0, held[offset : offset + row["heldout"]]).astype(np.int64)
        offset += row["heldout"]
        count = min((len(stream) - 1) // block, limit)
        windows = stream[np.arange(count)[:, None] * block + np.arange(block + 1)]
        nats = 0.0 if count else math.nan
        for part in torch.from_numpy(windows).to(model.device).split(16) if count else ():
            logits = model(part[:, :-1]).logits.float().flatten(0, 1)
            nats += cross_entropy(logits, part[:, 1:].flatten()).item() * len(part) / count
        table[name] = (nats, nats * row["heldout"] / max(1, row["heldout_bytes"]) / math.log(2))
    return table


def export(out: Path, work: Path, model: LlamaForCausalLM, card: str) -> None:
    """Puts weights, configuration, tokenizer and card into a folder that transformers loads."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as name:
        folder, special = Path(name), dict.fromkeys(("bos_token", "eos_token", "pad_token"), EOT)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(work / "tokenizer.json"), **special)
        tokenizer.model_max_length = model.config.max_position_embeddings
        tokenizer.save_pretrained(folder)
        half = {n: p.detach().half().cpu().contiguous() for n, p in model.named_parameters()}
        save_file(half, folder / "model.safetensors", {"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)
        # Half precision halves the folder; the configuration asks for single precision in use.
        model.config.save_pretrained(folder)
        (folder / "README.md").write_text(card)
        # One by one and each at once, so that a reader always finds a whole folder.
        for path in folder.iterdir():
            path.replace(out / path.name)


# ---- training --------------------------------------------------------------------------------
def train(args: argparse.Namespace, device: str) -> None:
    """Trains until the time is used, exporting on the way and at the end."""
    info = json.loads((args.work / "data.json").read_text())
    data, held = np.load(args.work / "train.npy"), np.load(args.work / "heldout.npy")
    model = build_model(args).to(device)
    opts, state = build_optimisers(model), {"steps": 0, "seconds": 0.0}
    if args.resume:  # the optimisers' moments start anew
        model.load_state_dict(load_file(args.work / "checkpoint.safetensors"), strict=False)
        state = json.loads((args.work / "state.json").read_text())

    def backward(starts: np.ndarray, half: bool) -> torch.Tensor:
        tokens = data[starts[:, None] + np.arange(args.block + 1)].astype(np.int64)
        batch = torch.from_numpy(tokens).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = model(batch[:, :-1]).logits
        loss = cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        return loss.detach()

    def publish(kind: str) -> None:
        table = evaluate(model, held, info, args.block, 8 if kind == "interim" else 10**9)
        tokens = state["steps"] * args.batch * args.block
        card = CARD.format(
            **vars(args), **state, tokens=tokens, parameters=model.num_parameters(), kind=kind,
            used=state["seconds"] / 60, speed=tokens / state["seconds"],
            machine=torch.cuda.get_device_name() if device == "cuda" else "a CPU",
            optimiser=" + ".join(type(opt).__name__ for opt in opts),
        )  # fmt: skip
        for name, row in info.items():
            counts = f"{row['docs']:,} | {row['removed']:,} | {row['train']:,}"
            losses = f"{table[name][0]:.3f} | {table[name][1]:.3f}"
            card += f"| {name} | {DOMAINS[name][2]} | {counts} | {losses} |\n"
            print(name, losses, flush=True)
        export(args.out, args.work, model, card)
        save_file(dict(model.named_parameters()), args.work / "checkpoint.safetensors")
        (args.work / "state.json").write_text(json.dumps(state))

    batches = block_starts([row["train"] for row in info.values()], args.block, args.batch)
    # Few processors multiply faster in bfloat16, so both are tried there.
    trials = [] if device == "cuda" else [False, True] * 3
    costs = [(timeit(partial(backward, next(batches), kind), number=1), kind) for kind in trials]
    half = min(costs, default=(0, True))[1]
    print(f"{model.num_parameters():,} parameters, {len(data):,} tokens, bf16 {half}", flush=True)
    total, last, due = args.minutes * 60, time.time(), state["seconds"] + 120
    batches = itertools.islice(batches, state["steps"], None)
    while (progress := state["seconds"] / total) < 1:
        model.zero_grad()
        loss = backward(next(batches), half)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = min(1.0, (progress + 1e-4) / 0.02, (1 - progress) / 0.45)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = args.lr * factor
            opt.step()
        last, before = time.time(), last
        state = {"steps": state["steps"] + 1, "seconds": state["seconds"] + last - before}
        if state["steps"] % 20 == 0:
            print(f"loss {loss:.3f} rate {factor:.3f} {state}", flush=True)
        if state["seconds"] > due:
            publish("interim")
            due = state["seconds"] + 600
    publish("decayed to the end")


def main() -> None:
    """Parses the command line and runs the pipeline."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--data", type=Path, default=os.environ.get("CURATE_DATA_DIR", "data"))
    cli.add_argument("--out", type=Path, required=True, help="folder of the model")
    cli.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "curate-probe"))
    cli.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    numbers = {"vocab": 4096, "dim": 192, "layers": 4, "block": 256, "batch": 16}
    for name, value in (numbers | {"minutes": 45.0, "lr": 8e-3}).items():
        cli.add_argument(f"--{name}", type=type(value), default=value)
    cli.add_argument("--resume", action="store_true", help="go on from the last export")
    args = cli.parse_args()
    cuda = torch.cuda.is_available() if args.device == "auto" else args.device == "cuda"
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "data.json").exists():
        prepare(args.data, args.work, args.vocab)
    train(args, "cuda" if cuda else "cpu")


if __name__ == "__main__":
    main()
