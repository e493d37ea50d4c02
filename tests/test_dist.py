"""sdist and wheel, installed in clean environments without development tools."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"dev"})  # each has to install alone
TRY = "import curate; print(curate.__version__); curate.rank; curate.embed_texts"


def run(*command, **more):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist made from the tree, and a wheel made from nothing but that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    make = (
        "import setuptools.build_meta as backend, sys;"
        "print(getattr(backend, 'build_' + sys.argv[1])(sys.argv[2]))"
    )
    sdist = run(sys.executable, "-c", make, "sdist", folder, cwd=ROOT).split()[-1]
    with tarfile.open(folder / sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    wheel = run(sys.executable, "-c", make, "wheel", folder, cwd=source).split()[-1]
    return folder / sdist, folder / wheel


def test_the_version_and_the_changelog_agree():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[
        1
    ]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_what_the_image_copies_is_there_and_let_in():
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    for name in ("Dockerfile", "Dockerfile.cuda"):
        for line in (ROOT / "docker" / name).read_text().splitlines():
            if line.startswith("COPY "):
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), f"{name}: {source}"
                    assert source in allowed, f"{name}: {source}"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"curate"}
    package = ROOT / "curate"
    files = {f"curate/{p.relative_to(package)}" for p in package.rglob("*") if p.is_file()}
    data = {name for name in files if "__pycache__" not in name}
    assert data <= names, data - names


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_the_wheel_works_in_a_clean_environment(built, tmp_path):
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", built[1])
    listed = run(python, "-m", "pip", "list", "--format=freeze").lower()
    assert not re.search(r"^(pytest|ruff|mypy|hypothesis|mkdocs)", listed, re.MULTILINE)
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    env.pop("PYTHONPATH", None)
    assert run(python, "-c", TRY, cwd=tmp_path, env=env).strip()
    curate = home / "bin" / "curate"
    assert "build-mix" in run(curate, "--help", cwd=tmp_path, env=env)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, word in {"a": "theorem", "b": "whale"}.items():
        (corpus / f"{name}.txt").write_text(f"the {word} is here and the {word} stays.\n" * 400)
    run(curate, "index", "corpus", "--batch-tokens", "256", cwd=tmp_path, env=env)
    for extra in EXTRAS:
        run(python, "-m", "pip", "install", "-q", f"{built[1]}[{extra}]")
        for wanted in PROJECT["optional-dependencies"][extra]:
            name = re.match(r"[\w.-]+", wanted)[0]
            run(python, "-c", f"from importlib.metadata import version; version({name!r})", env=env)
    run(curate, "--version", cwd=tmp_path, env=env)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path, cwd=ROOT)
    assert (tmp_path / "how-to" / "choose-shards" / "index.html").is_file()
