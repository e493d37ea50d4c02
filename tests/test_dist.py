"""sdist, wheel, extras and images: in clean environments, without development tools."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMAGES = ["Dockerfile", "Dockerfile.cuda"]
TRY = {  # what shows that an extra is there, and does its part
    "gguf": "from curate.task2vec import gguf; import gguf",
    "lora": "from peft import LoraConfig; LoraConfig(r=4)",
    "s3": "import fsspec; fsspec.filesystem('s3', anon=True)",
    "gs": "import fsspec; fsspec.filesystem('gs', token='anon')",
    "lm-eval": "from curate.corpus import harness; from lm_eval.tasks import TaskManager",
    "ray": "from curate.engine import on_ray; import ray, aiohttp",
    "wandb": "import wandb",
    "trackio": "import trackio",
    "mlflow": "import mlflow",
    "tensorboard": "from torch.utils.tensorboard import SummaryWriter",
    "docs": "import mkdocs, material",
}
TYPED = """
import curate
from curate.records import Index, Mix, Ranking, Verification
from curate.settings import CorpusSettings, MixSettings

settings = curate.Settings(CorpusSettings(inputs=("corpus",)), mix=MixSettings(holdout=0.01))
index: Index = curate.index("corpus", settings=settings)
ranking: Ranking = curate.rank(["a.jsonl:2", "b.jsonl:1"])
mix: Mix = curate.build_mix("100M", out="mix")
done: Verification = curate.verify(settings=curate.read_settings("curate.toml"))
again: Mix = curate.open_artefact("mix")
drop: float = again.forecast.drop
reveal_type(curate.rank("proofnet").shards[0].alignment)
"""
MODULE_OF = {  # where the name of a package is not that of its module
    "faiss-cpu": "faiss", "scikit-learn": "sklearn", "mlflow-skinny": "mlflow",
    "huggingface-hub": "huggingface_hub", "lm-eval": "lm_eval",
}  # fmt: skip


def run(*command, **more):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def clean(**more):
    """The variables of a process, with nothing of this tree and no hub."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HF_HUB_OFFLINE": "1", **more}


def install(python, *what):
    run(python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *what, env=clean())


def small_corpus(folder):
    (folder / "corpus").mkdir()
    for name, word in {"a": "theorem", "b": "whale"}.items():
        text = f"the {word} is here and the {word} stays.\n" * 400
        (folder / "corpus" / f"{name}.txt").write_text(text)
    parts = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    lines = [json.dumps({"text": part}) for part in parts if len(part) > 60]
    (folder / "questions.jsonl").write_text("\n".join(lines))


def tagged_copy(folder, tag):
    """A clone of this repository, with what is changed here, committed and tagged."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    run("git", "clone", "-q", "--no-tags", ROOT, folder)
    me = ["-c", "user.name=curate", "-c", "user.email=curate@example.org"]
    changed = run("git", "ls-files", "-mo", "--exclude-standard", cwd=ROOT).splitlines()
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    run("git", "add", "-A", cwd=folder)
    run("git", *me, "commit", "-q", "--allow-empty", "-m", "As it is here", cwd=folder)
    run("git", "tag", tag, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist made from a tagged clone, and a wheel made from nothing but that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    source = tagged_copy(folder / "source", "v9.8.7")
    run(sys.executable, "-m", "build", "--outdir", folder, source, env=clean())
    return folder / "curate-9.8.7.tar.gz", folder / "curate-9.8.7-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Environment that holds the wheel and what it needs; constraints keep torch small."""
    home = tmp_path_factory.mktemp("installed") / "env"
    venv.create(home, with_pip=True)
    install(home / "bin" / "python", built[1])
    return home


def copy_of(environment, folder):
    """The same environment in another place: files are linked, and pip replaces, never writes."""
    shutil.copytree(environment, folder, symlinks=True, copy_function=os.link)
    return folder / "bin" / "python"


def test_the_changelog_and_the_citation_name_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)[1]
    assert f"version: {newest}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT


def test_every_extra_is_tried():
    assert set(TRY) == set(PROJECT["optional-dependencies"]) - {"dev"}


def modules_of(requirements):
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
    return {MODULE_OF.get(name, name) for name in names}


def test_what_the_package_imports_is_what_it_requires():
    """A package that only another one brings goes when that one drops it."""
    imported = set()
    for path in (ROOT / "curate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    extras = PROJECT["optional-dependencies"]
    required = modules_of(PROJECT["dependencies"])
    optional = set().union({"pandas"}, *(modules_of(extras[name]) for name in TRY))
    assert imported - set(sys.stdlib_module_names) - {"curate"} - optional == required


def test_the_metadata_says_where_it_runs_and_that_it_is_typed():
    told = set(PROJECT["classifiers"])
    assert {"Operating System :: POSIX", "Typing :: Typed"} <= told
    assert (ROOT / "curate" / "py.typed").is_file()
    assert not [each for each in told if each.startswith("License")], "the expression says it"


def test_a_source_distribution_without_git_holds_every_page_of_the_first_folder():
    named = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split("\n")[0].split()
    pages = {path.name for path in ROOT.glob("*.md")} - {"README.md"}  # which goes by itself
    assert pages | {"CITATION.cff", "constraints.txt"} <= set(named)


@pytest.mark.parametrize("image", IMAGES)
def test_what_the_image_copies_is_there_and_let_in(image):
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    for line in (ROOT / "docker" / image).read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), f"{image}: {source}"
                assert source in allowed, f"{image}: {source}"


def test_the_images_differ_by_the_torch_that_they_take():
    cpu, cuda = ((ROOT / "docker" / image).read_text() for image in IMAGES)
    assert "-c constraints.txt" in cpu and "\nARG PIP_EXTRA_INDEX_URL\n" in cpu
    assert "constraints" not in cuda and "INDEX" not in cuda
    assert cpu.split(" . \\\n")[1] == cuda.split(" . \\\n")[1]


@pytest.mark.parametrize("image", IMAGES)
def test_the_linter_of_dockerfiles_has_nothing_to_say(image):
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is not installed")
    assert run("hadolint", ROOT / "docker" / image) == ""


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_commit_after_the_tag_is_a_development_version(tmp_path):
    source = tagged_copy(tmp_path / "source", "v9.8.7")
    me = ["-c", "user.name=curate", "-c", "user.email=curate@example.org"]
    run("git", *me, "commit", "-q", "--allow-empty", "-m", "One more", cwd=source)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source, env=clean())
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("curate-9.8.8.dev1+g")


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_download_of_a_tag_knows_its_version_without_git(tmp_path):
    source = tagged_copy(tmp_path / "source", "v9.8.7")
    archive = tmp_path / "curate.tar"
    run("git", "archive", "--prefix=download/", "-o", archive, "v9.8.7", cwd=source)
    shutil.unpack_archive(archive, tmp_path, filter="data")
    download = tmp_path / "download"
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, download, env=clean())
    assert (tmp_path / "curate-9.8.7-py3-none-any.whl").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"curate"}
    package = ROOT / "curate"
    files = {f"curate/{p.relative_to(package)}" for p in package.rglob("*") if p.is_file()}
    data = {name for name in files if "__pycache__" not in name}
    assert data <= names, data - names
    assert {"curate/py.typed", "curate/report/report.html"} <= names


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_the_wheel_works_in_a_clean_environment(installed, tmp_path):
    python, curate = installed / "bin" / "python", installed / "bin" / "curate"
    listed = run(python, "-m", "pip", "list", "--format=json", env=clean())
    names = {package["name"].lower() for package in json.loads(listed)}
    assert not names & {"pytest", "ruff", "mypy", "hypothesis", "mkdocs", "setuptools-scm"}
    run(python, "-m", "pip", "check", env=clean())
    here = {"cwd": tmp_path, "env": clean()}
    assert run(curate, "--version", **here).strip() == "curate, version 9.8.7"
    small_corpus(tmp_path)
    run(curate, "index", "corpus", "--batch-tokens", "256", **here)
    run(curate, "rank", "--target", "questions.jsonl", "--method", "lexical", **here)
    script = run(curate, **{**here, "env": clean(_CURATE_COMPLETE="bash_source")})
    assert "complete" in script


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_a_type_checker_sees_the_types_of_the_installed_package(installed, tmp_path):
    (tmp_path / "use.py").write_text(TYPED)
    words = ["--python-executable", installed / "bin" / "python", "--cache-dir", tmp_path]
    strict = ["--strict", "--follow-imports=silent"]
    check = [sys.executable, "-m", "mypy", *strict, *words, "use.py"]
    assert re.search(
        r'Revealed type is "(builtins\.)?float"', run(*check, cwd=tmp_path, env=clean())
    )


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("extra", sorted(TRY))
def test_each_extra_installs_alone(built, installed, tmp_path, extra):
    python = copy_of(installed, tmp_path / "env")
    install(python, f"{built[1]}[{extra}]")
    run(python, "-c", TRY[extra], cwd=tmp_path, env=clean())
    run(python, "-m", "pip", "check", env=clean())
    if extra == "docs":
        words = ["build", "--strict", "--site-dir", tmp_path / "site"]
        run(python, "-m", "mkdocs", *words, cwd=ROOT, env=clean())
        assert (tmp_path / "site" / "how-to" / "choose-shards" / "index.html").is_file()
    shutil.rmtree(tmp_path / "env")


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("image", IMAGES)
def test_the_commands_of_the_image_run_on_what_it_copies(installed, tmp_path, image):
    """No engine is needed: COPY into a folder, RUN in it, start the entry point elsewhere.

    The machine's users stay as they are, and torch is the one that constraints.txt names.
    """
    lines = (ROOT / "docker" / image).read_text().replace("\\\n", " ").splitlines()
    python = copy_of(installed, tmp_path / "env")
    run(python, "-m", "pip", "uninstall", "-q", "-y", "curate", env=clean())
    source = tmp_path / "src"
    for words in (line.split() for line in lines if line.startswith("COPY ")):
        for name in words[1:-1]:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            source.mkdir(exist_ok=True)
            copy(ROOT / name, source / name)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    env = clean(PATH=path, PIP_CONSTRAINT=str(CONSTRAINTS), VERSION="9.8.7")
    (command,) = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ")]
    script = f"useradd() {{ :; }}; chmod() {{ :; }}; {command.replace(' pip ', ' python -m pip ')}"
    run("bash", "-euc", script, cwd=source, env=env)
    work = tmp_path / "work"
    work.mkdir()
    small_corpus(work)
    (entry,) = [json.loads(line[11:]) for line in lines if line.startswith("ENTRYPOINT ")]
    (name,) = entry
    assert "9.8.7" in run(python.parent / name, "--version", cwd=work, env=env)
    run(python.parent / name, "index", "corpus", "--batch-tokens", "256", cwd=work, env=env)
    shutil.rmtree(tmp_path / "env")
