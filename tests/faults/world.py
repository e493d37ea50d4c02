"""A tiny world: a corpus, a probe, a target, and the four commands on them in forked processes.

A parent imports everything and runs each command once; every trial is a fork of it, so that a
kill costs the work of the command and not the start of an interpreter.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

STAGES = ("index", "rank", "build-mix", "verify")
DONE = {"index": (0,), "rank": (0,), "build-mix": (0,), "verify": (0, 4)}
"""Exit codes of a command that did all of its work (4: the forecast was not confirmed)."""

KILLED = -signal.SIGKILL

SETTINGS = """\
[corpus]
inputs = ["corpus"]
shard_tokens = 400
[embed]
probe = "probe"
batches = 2
batch_tokens = 96
block_tokens = 32
documents = 4
[target]
name = "docs=target/select.jsonl,target/eval.jsonl"
[rank]
method = "task2vec"
bootstrap = 20
[mix]
budget = 600
holdout = 0.1
[verify]
size = "tiny"
tokens = 128
tokenizer = "probe"
seeds = 1
calibration = 2
block_tokens = 16
batch_tokens = 64
eval_items = 2
control_items = 2
"""

WORDS = {
    "maths": "group ring field sheaf lattice kernel proof lemma prime order limit norm",
    "ships": "river stone bread lamp engine bolt wheel harbour anchor sail rope mast",
    "plain": "the a of and maps turns holds breaks over under every some into with",
}


def make_texts(kind: str, count: int, *, seed: int) -> list[str]:
    """Return documents of 30 to 60 words of one kind, all different."""
    draw = random.Random(f"{kind}{seed}")
    own, plain = WORDS[kind].split(), WORDS["plain"].split()
    lengths = [draw.randrange(30, 60) for _ in range(count)]
    return [
        f"{kind} {number}: " + " ".join(draw.choices(own + plain, k=length))
        for number, length in enumerate(lengths)
    ]


def write_lines(path: Path, texts: list[str], *, name: str) -> None:
    """Write documents as JSON lines, each with a topic to group by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": f"{name}-{number}", "text": text, "topic": f"{name}{number % 2}"})
        for number, text in enumerate(texts)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_world(home: Path, *, settings: str = SETTINGS) -> Path:
    """Write corpus, probe, target and curate.toml into a new folder; return it."""
    home.mkdir(parents=True)
    write_lines(home / "corpus" / "maths.jsonl", make_texts("maths", 10, seed=0), name="m")
    write_lines(home / "corpus" / "ships.jsonl", make_texts("ships", 10, seed=0), name="s")
    texts = make_texts("plain", 6, seed=0)
    table = pa.table({"id": [f"p{n}" for n in range(6)], "text": texts, "topic": ["p"] * 6})
    pq.write_table(table, home / "corpus" / "plain.parquet", write_page_checksum=True)
    write_lines(home / "target" / "select.jsonl", make_texts("maths", 8, seed=1), name="t")
    write_lines(home / "target" / "eval.jsonl", make_texts("maths", 8, seed=2), name="e")
    make_probe(home / "probe")
    (home / "curate.toml").write_text(settings, encoding="utf-8")
    return home


def make_probe(folder: Path) -> None:
    """Write a causal model of two layers of width 16, with a tokenizer of a few hundred words."""
    import tokenizers
    import torch
    import transformers

    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    plain.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for kind in WORDS for text in make_texts(kind, 20, seed=3)]
    plain.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a forked command ended."""

    code: int  # exit code, or minus the signal
    out: str
    err: str
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)  # what the child counted

    @property
    def said(self) -> list[str]:
        """The lines of stderr that are the command's last word, progress apart."""
        return [line for line in self.err.splitlines() if line.startswith("curate: ")]

    @property
    def fell(self) -> bool:
        """Whether it ended with a traceback: a bug, whatever was done to it."""
        return "Traceback" in self.err


Tree = dict[str, Any]  # name of a published file → its bytes, or what they say apart from times


@dataclass(slots=True)
class World:
    """A folder with all inputs, what each command publishes there, and how many events it has."""

    home: Path
    before: dict[str, Path] = field(default_factory=dict)  # what is there before each command
    oracle: dict[str, Tree] = field(default_factory=dict)  # what is there after it, unharmed
    events: dict[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = STAGES  # those that are killed and refused
    parts: tuple[int, int] = (1, 1)  # which part of the refusals, of how many
    recovered: set[tuple[str, str]] = field(default_factory=set)  # commands, and states
    # from which they were seen to publish what an unharmed run does

    def restore(self, stage: str) -> None:
        """Put the published files back to those before a command; `after` is after the last."""
        for name in (".curate", "mix", ".mix.staging"):
            shutil.rmtree(self.home / name, ignore_errors=True)
            if (self.before[stage] / name).is_dir():
                shutil.copytree(self.before[stage] / name, self.home / name)

    def keep(self, stage: str) -> None:
        """Remember the published files as those before a command."""
        self.before[stage] = self.home.parent / f"before-{stage}"
        self.before[stage].mkdir()
        for name in (".curate", "mix"):
            if (self.home / name).is_dir():
                shutil.copytree(self.home / name, self.before[stage] / name)

    def run(self, stage: str, *, failpoint: str = "", **hooks: Any) -> Ended:
        """Run a command in a fork, with a failpoint where one is named."""
        return run_forked(self.home, (stage, "--json"), failpoint=failpoint, **hooks)

    def state(self) -> str:
        """Return a digest of all that lies in the folder, apart from times and the log of runs.

        Two folders of one state give a command the same to go on from.
        """
        from curate.store.publish import read_json_if_whole

        there = hashlib.blake2b(digest_size=16)
        for path in sorted(self.home.rglob("*")):
            if path.name == "history.jsonl" or not path.is_file():
                continue
            where, mode = str(path.relative_to(self.home)), path.stat().st_mode
            said = path.read_bytes()
            if where.startswith(".curate/verify/") and where.endswith(".json"):
                whole = read_json_if_whole(path, dict[str, Any])
                said = said if whole is None else repr(_timeless(whole)).encode()
            there.update(b"%r %o %d " % (where.encode(), mode, len(said)) + said)
        return there.hexdigest()

    def differs(self, stage: str) -> list[str]:
        """Name the published files that are not what an unharmed run publishes by a command."""
        there, wanted = tree(self.home), self.oracle[stage]
        names = sorted(there.keys() | wanted.keys())
        return [name for name in names if there.get(name) != wanted.get(name)]


def open_world(
    folder: Path, *, settings: str = SETTINGS, stages: tuple[str, ...] = STAGES
) -> World:
    """Make a world, warm this process up, and run every command once without harm."""
    world = World(make_world(folder / "home", settings=settings))
    warm_up(world.home)
    for stage in stages:
        world.keep(stage)
        ended = world.run(stage, failpoint="*:0=kill")
        if ended.code not in DONE[stage]:
            raise SystemExit(f"{stage} does not even run unharmed: {ended.code}\n{ended.err}")
        world.oracle[stage] = tree(world.home)
        world.events[stage] = ended.counts["*"]
    world.keep("after")
    return world


def run_forked(
    home: Path,
    words: tuple[str, ...],
    *,
    failpoint: str = "",
    before: Callable[[], None] | None = None,
    tell: Callable[[], Mapping[str, int]] | None = None,
    meanwhile: Callable[[int], None] | None = None,
    name: str = "run",
) -> Ended:
    """Run one command of the command line in a fork, from inside `home`.

    Args:
        home: working folder.
        words: of the command.
        failpoint: for `CURATE_FAILPOINT`.
        before: called in the child first: what arms another fault.
        tell: called in the child at the end: counts that come back; the failpoints' by default.
        meanwhile: called here with the child's process id, once it runs.
        name: of the log, where several run at once.
    """
    began = time.monotonic()
    child = start_forked(home, words, failpoint=failpoint, before=before, tell=tell, name=name)
    if meanwhile is not None:
        meanwhile(child)
    return wait_forked(home, child, name=name, began=began)


def start_forked(
    home: Path,
    words: tuple[str, ...],
    *,
    failpoint: str = "",
    before: Callable[[], None] | None = None,
    tell: Callable[[], Mapping[str, int]] | None = None,
    name: str = "run",
) -> int:
    """Start a command in a fork; return its process id."""
    logs = home.parent / "logs"
    logs.mkdir(exist_ok=True)
    for kind in ("out", "err", "told", "started"):
        (logs / f"{name}.{kind}").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_command(home, words, logs / name, failpoint, before, tell)
    return child


def wait_forked(home: Path, child: int, *, name: str = "run", began: float = 0.0) -> Ended:
    """Wait for a forked command and read what it left."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    logs = home.parent / "logs"

    def text(kind: str) -> str:
        path = logs / f"{name}.{kind}"
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    counts = json.loads(text("told") or "{}")
    return Ended(code, text("out"), text("err"), time.monotonic() - began, counts)


def _be_command(
    home: Path,
    words: tuple[str, ...],
    log: Path,
    failpoint: str,
    before: Callable[[], None] | None,
    tell: Callable[[], Mapping[str, int]] | None,
) -> None:
    """Be the command: never returns."""
    from curate.store.failpoint import count_events

    code = 70
    try:
        for stream, kind in ((1, "out"), (2, "err")):
            path = log.with_name(f"{log.name}.{kind}")
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
        sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
        os.chdir(home)
        # what starts in the background of a script inherits that interrupts are ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # One core, says the system: the run goes on in this process, where events are counted.
        os.sched_getaffinity = lambda pid: {0}  # type: ignore[assignment]
        os.environ["CURATE_FAILPOINT"] = failpoint
        if before is not None:
            before()
        from curate.cli import main

        log.with_name(f"{log.name}.started").touch()
        main(list(words), prog_name="curate")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os.environ["CURATE_FAILPOINT"] = ""
        with suppress(Exception):
            counts = (tell or count_events)()
            log.with_name(f"{log.name}.told").write_text(json.dumps(counts))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def warm_up(home: Path) -> None:
    """Import, here in the parent, all that the commands import, and use the model once."""
    import curate

    for found in pkgutil.walk_packages(curate.__path__, "curate."):
        with suppress(ImportError):  # an extra that is not installed
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    from curate.settings import EmbedSettings
    from curate.task2vec.embedding import embed_texts
    from curate.task2vec.probe import load_probe

    probe = load_probe(str(home / "probe"), device="cpu")
    small = EmbedSettings(batches=2, batch_tokens=64, block_tokens=32)
    embed_texts(make_texts("maths", 4, seed=9), probe, small)


def tree(home: Path) -> Tree:
    """Return every published file of a world with its content; leave out locks, the log and inputs.

    What `verify` publishes says when its runs began and how long they took: of it, all else.
    """
    found: Tree = {}
    for folder in (home / ".curate", home / "mix"):
        for here, _, names in os.walk(folder):
            for name in names:
                path = Path(here) / name
                if name in (".lock", "history.jsonl"):  # a log of what ran, not published
                    continue
                where, data = str(path.relative_to(home)), path.read_bytes()
                timed = where.startswith(".curate/verify/") and name.endswith(".json")
                found[where] = _timeless(json.loads(data)) if timed else data
    return found


TIMES = {"started_at", "made_at", "forecast_at", "trained_at", "seconds", "digest",
         "forecast_digest", "blake2b", "bytes"}  # fmt: skip


def _timeless(value: Any) -> Any:
    """Leave out when something was done, and every digest of what says so."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in TIMES}
        if isinstance(kept.get("forecast"), str):
            del kept["forecast"]  # the digest of a forecast, in a run
        return {name: _timeless(part) for name, part in kept.items()}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def stamps(home: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """Return which files are there, each told apart from a later one of the same name."""
    found = {}
    for path in home.glob(pattern):
        if not path.name.startswith("."):
            status = path.stat()
            found[str(path)] = (status.st_ino, status.st_mtime_ns)
    return found
