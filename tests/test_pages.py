"""Every command that the README and the tutorial show runs, in their order, on small real text."""

import re
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from curate.cli import main
from curate.config import read_settings
from curate.task2vec.reading import index_is_current, open_index
from tests.conftest import write_jsonl
from tests.page_home import ROOT, home, smaller

__all__ = ["home"]  # a fixture

BLOCK = re.compile(r"^( *)```(sh|toml|python)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
NOT_RUN_HERE = {"make demo", "make test", "cd demo"}  # two commands that contain this test
# Lines that want a hub, a GPU, a cluster or minutes: the test that runs them on what there is.
ELSEWHERE = {
    "curate demo": ("test_notebooks.py", "demo_settings"),
    "curate push": ("test_push.py", "push"),
    "curate rank --target lm-eval:": ("test_harness.py", "lm-eval:"),
    "curate verify --outcome lm-eval:": ("test_answers.py", "find_outcomes"),
    "curate index corpora/ --device cuda": ("test_engine.py", "gpu"),
    "CUDA_VISIBLE_DEVICES=": ("test_engine.py", "CUDA_VISIBLE_DEVICES"),
    "ray start": ("test_engines.py", "ray"),
    "export CURATE_WORKSPACE=s3": ("test_mirror.py", "--workspace"),
    "curate verify --engine ray": ("test_engines.py", "ray"),
    "curate index corpora/ --engine ray": ("test_engines.py", "ray"),
    "curate index corpora/ --engine batch": ("test_engines.py", "batch"),
    "curate build-mix --budget 100B --engine batch": ("test_engines.py", "batch"),
    "curate index --workspace s3://": ("test_mirror.py", "--workspace"),
    "curate rank --workspace s3://": ("test_mirror.py", "--workspace"),
    "curate build-mix --workspace s3://": ("test_mirror.py", "--workspace"),
    'eval "$(_CURATE_COMPLETE': ("test_completion.py", "bash_source"),
}
SHORT_VERIFY = ["--size", "tiny", "--tokens", "2k", "--seeds", "2", "--calibration", "2"]


def expanded(word):
    """What a shell makes of a word with a star."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def has_size():
    """Say whether a page's own curate.toml says what a verification takes."""
    path = Path("curate.toml")
    return path.exists() and re.search("^size = ", path.read_text("utf-8"), re.MULTILINE)


def run_shell(block):
    """Run the lines of a shell block in this process; return the commands that ran."""
    ran = []
    for line in filter(None, (line.split("  #")[0].strip() for line in block.splitlines())):
        if line.split("    #")[0].strip() in NOT_RUN_HERE or line.startswith(("#", *ELSEWHERE)):
            continue
        words = shlex.split(smaller(line))
        assert words[0] == "curate", f"a page shows a command that nothing runs: {line}"
        words, into = [path for word in words[1:] for path in expanded(word)], None
        if ">" in words:
            words, into = words[: words.index(">")], words[-1]
        if words[0] == "verify" and "--size" not in words and not has_size():
            words += SHORT_VERIFY[2:] if "--model" in words else SHORT_VERIFY
        done = CliRunner().invoke(main, words)
        allowed = {0, 4} if words[0] == "verify" else {0}  # 4: refuted, which is an answer
        assert done.exit_code in allowed, f"{line}\n{done.output}\n{done.exception!r}"
        if into:
            Path(into).write_text(done.stdout, encoding="utf-8")
        ran.append(words[0])
    return ran


def blocks(page):
    """Kind and text of each block that runs; one in a list is indented."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [(kind, textwrap.dedent(text)) for _, kind, text in found]


def run_page(page):
    """Run a page from its first block to its last; return the commands that ran."""
    ran = []
    for kind, text in blocks(page):
        if kind == "sh":
            ran += run_shell(text)
        elif kind == "toml":
            before = Path("curate.toml").read_text("utf-8") if 'engine = "ray"' in text else ""
            Path("curate.toml").write_text(smaller(text), encoding="utf-8")
            read_settings()
            if before:  # there is no cluster here: that it is read has to do
                Path("curate.toml").write_text(before, encoding="utf-8")
        else:
            exec(compile(smaller(text), page, "exec"), {})
    return ran


EMBEDDED = ("index/shards", "index/prints", "targets")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """What the pages of this module embed: it is found by its content, so none does it again."""
    return tmp_path_factory.mktemp("pool")


@pytest.fixture
def folder(home, pool):
    """A page's folder, with what the pages before it embedded, and nothing else of theirs."""
    shutil.copytree(pool, home / ".curate")
    yield home
    for part in EMBEDDED:
        if (home / ".curate" / part).is_dir():
            shutil.copytree(home / ".curate" / part, pool / part, dirs_exist_ok=True)


@pytest.mark.parametrize("number", range(3))
def test_the_shell_blocks_of_the_readme_run(folder, number):
    shell = [text for kind, text in blocks("README.md") if kind == "sh"]
    assert len(shell) == 3, "a new block needs a run: raise the range of this test"
    ran = run_shell(shell[number])
    assert ran or "make" in shell[number]


def test_the_tutorial_runs_from_its_first_block_to_its_last(folder):
    ran = run_page("docs/tutorial.md")
    assert {"init", "index", "rank", "build-mix", "verify", "report", "show"} <= set(ran)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A whole workspace, which the first of the pages made, for those after it."""
    return tmp_path_factory.mktemp("embedded") / ".curate"


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs/how-to").glob("*.md")))
def test_the_how_to_pages_run(folder, embedded, page):
    if embedded.is_dir():
        shutil.copytree(embedded, folder / ".curate", dirs_exist_ok=True)
    ran = run_page(f"docs/how-to/{page}")
    assert ran
    if not embedded.is_dir():
        shutil.copytree(folder / ".curate", embedded)


SMALL_TOML = """\
[corpus]
inputs = ["corpus"]
[embed]
batch_tokens = 256
[verify]
size = "tiny"
tokens = "2k"
seeds = 1
calibration = 2
"""
RANKED = ["curate rank --target proofnet"]
MIXED = [*RANKED, "curate build-mix --budget 8k --out mix"]
BEFORE = {  # what a page takes for granted
    "api.md": [], "concepts.md": [], "scaling.md": [], "formats.md": MIXED,
    "commands/build-mix.md": RANKED, "commands/report.md": RANKED, "commands/show.md": MIXED,
    "commands/verify.md": MIXED,
}  # fmt: skip
OTHERS = [
    *(page for page in BEFORE if "/" not in page),
    *sorted(f"commands/{path.name}" for path in (ROOT / "docs/commands").glob("*.md")),
]


SLOW = {"commands/index.md", "commands/verify.md"}  # each trains a dozen models


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in OTHERS]
)
def test_the_other_pages_run(folder, embedded, page):
    if embedded.is_dir():
        shutil.copytree(embedded, folder / ".curate", dirs_exist_ok=True)
    if "init.md" not in page and page != "commands/index.md":  # those two write their own
        Path("curate.toml").write_text(SMALL_TOML, encoding="utf-8")
    run_shell("\n".join(BEFORE.get(page, [])))
    if page == "formats.md":  # reads sources that lie beside the mix
        for path in Path("corpus").iterdir():
            shutil.copy(path, path.name)
    run_page(f"docs/{page}")


def test_the_first_page_shows_what_the_readme_shows():
    (shown,) = [text for _, text in blocks("docs/index.md")]
    readme = blocks("README.md")[0][1]
    assert shown.splitlines() == [line.split("  ")[0] for line in readme.splitlines()]


def test_every_page_with_a_block_is_run():
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    held = {page for page in pages if blocks(f"docs/{page}")}
    run = {
        "index.md",
        "tutorial.md",
        *OTHERS,
        *(page for page in pages if page.startswith("how-to/")),
    }
    assert held <= run, held - run


@pytest.mark.parametrize("line", ELSEWHERE)
def test_what_is_not_run_here_is_run_elsewhere(line):
    file, word = ELSEWHERE[line]
    assert word in (ROOT / "tests" / file).read_text(encoding="utf-8")
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert line in pages, "no page shows it any more"


def test_the_recipes_for_ci_run_the_commands_of_the_page():
    """The workflow and the hook are YAML of the right shape, and their commands parse."""
    workflow = yaml.safe_load((ROOT / "examples/ci/data.yml").read_text(encoding="utf-8"))
    steps = [step.get("run", "") for step in workflow["jobs"]["alignment"]["steps"]]
    hooks = yaml.safe_load((ROOT / "examples/ci/pre-commit-config.yaml").read_text("utf-8"))
    steps += [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    lines = [shlex.split(step) for step in steps if step.startswith("curate ")]
    assert {line[1] for line in lines} == {"rank", "report"}
    for _, name, *words in lines:
        main.commands[name].make_context(name, words)


def test_what_an_index_needs_no_more_goes_by_the_block_of_its_page(home):
    write_jsonl(Path("c.jsonl"), [f"document {n} of the first kind" for n in range(9)])
    small = ["--batches", "2", "--batch-tokens", "16"]
    runs = [["index", "c.jsonl", *small], ["index", "c.jsonl", *small, "--layers", "last:1"]]
    for words in runs:
        assert CliRunner().invoke(main, words).exit_code == 0
    assert len(list(Path(".curate/index/shards").iterdir())) == 2
    (prune,) = (text for kind, text in blocks("docs/commands/index-corpus.md") if kind == "python")
    Path(".curate/index/shards/stray.parquet").write_bytes(b"")
    exec(compile(prune, "index-corpus.md", "exec"), {})
    index = open_index(Path(".curate"))
    kept = [path.name for path in Path(".curate/index/shards").iterdir()]
    assert kept == [f"{index.shards[0].key}.safetensors"]
    assert len(list(Path(".curate/index/prints").iterdir())) == 1
    assert index_is_current(index.corpus, index.embed, Path(".curate"))
