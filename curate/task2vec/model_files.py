"""The files of a model: where they lie, and what tells one from another; nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from curate.errors import CurateError
from curate.store.fingerprint import digest_file, fingerprint
from curate.store.places import user_path

BUILTIN = Path(__file__).parent / "builtin"
_TOKENIZER_FILES = ("*.json", "*.model", "*.txt", "*.jinja")


def find_revision(name: str) -> str:
    """Return the revision that `load_probe` would record, without loading the model.

    Raises:
        CurateError: as `load_probe`.
    """
    return revision_of(fetch_model(name))


def fetch_model(name: str, *, what: str = "probe") -> Path:
    """Return the local folder (or .gguf file) of a model, downloading a hub model if need be.

    Args:
        name: as for `load_probe`.
        what: how messages call it.

    Raises:
        CurateError: not there, not to be had, or without safetensors.
    """
    if name == "builtin":
        if not (BUILTIN / "config.json").is_file():
            raise CurateError(
                "probe builtin: its weights are missing from this installation; install again"
            )
        return BUILTIN
    path = user_path(name)
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CurateError(f"{what} {name}: the folder has no config.json; is it a saved model?")
        _check_safetensors(f"{what} {name}", path)
        return path
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")):
        raise CurateError(f"{what} {name}: no such file or folder")
    path = _download(name, what, ["*.safetensors", "*.safetensors.index.json", *_TOKENIZER_FILES])
    _check_safetensors(f"{what} {name}", path)
    return path


def fetch_tokenizer(name: str) -> Path:
    """Return the local folder of a hub model's tokenizer: its text files, no weights.

    Raises:
        CurateError: not to be had.
    """
    return _download(name, "tokenizer", list(_TOKENIZER_FILES))


def _download(name: str, what: str, patterns: list[str]) -> Path:
    import huggingface_hub  # a tenth of a second, for models of the hub alone
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=patterns
            )
        )
    except HFValidationError:
        raise CurateError(
            f"{what} {name}: neither a file, nor a folder, nor a hub id such as org/model"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise CurateError(
            f"{what} {name}: cannot be fetched from the hub ({reason[0] if reason else error}); "
            + (
                "use builtin, or a local folder or .gguf file"
                if what == "probe"
                else "use a local folder"
            )
        ) from None


def _check_safetensors(which: str, path: Path) -> None:
    if not any(path.glob("*.safetensors")):
        raise CurateError(
            f"{which}: no .safetensors weights (pickled ones are not read); "
            "save the model with save_pretrained, or use another"
        )


def revision_of(path: Path) -> str:
    """Return the commit of a hub snapshot, or a digest of the files that decide the model."""
    if path.is_file():
        return digest_file(path)
    if path.parent.name == "snapshots":
        return path.name
    patterns = ("*.safetensors", "config.json", "tokenizer*", "vocab*", "merges.txt")
    files = sorted({file for pattern in patterns for file in path.glob(pattern)})
    return fingerprint(files=[(file.name, digest_file(file)) for file in files])
