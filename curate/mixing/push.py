"""A mix to the hub: the folder as it is, its card first among its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from curate.errors import USAGE, CurateError
from curate.records import Mix, Notify, silent
from curate.store.publish import read_json


def push_mix(
    mix: Mix, repo: str, *, private: bool = False, revision: str = "", notify: Notify = silent
) -> str:
    """Upload every file that a mix's `meta.json` names, unchanged, in one commit.

    The folder's digests hold for the copy too: nothing is rewritten on the way. The hub's client
    splits large files, resumes, and finds the token of `hf auth login` or `HF_TOKEN` itself.

    Args:
        mix: published; the caller has held its files against their digests.
        repo: org/name.
        private: where it is made now.
        revision: a branch, made where it is not there; "" is main.
        notify: progress.

    Returns:
        The address of the data set.

    Raises:
        CurateError: a name that the hub would not take, no permission, or no hub.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise CurateError(f"{repo}: not a name on the hub; write org/name", exit_code=USAGE)
    import huggingface_hub  # takes seconds, and no other stage of this room needs it

    folder = Path(mix.folder)
    files = [*read_json(folder / "meta.json", dict[str, Any])["files"], "meta.json"]
    size = sum((folder / name).stat().st_size for name in files)
    notify(f"pushing {len(files)} files, {size / 1e6:,.1f} MB, to {repo}", 0, 0)
    hub = huggingface_hub.HfApi()
    try:
        address = hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if revision:
            hub.create_branch(repo, branch=revision, repo_type="dataset", exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="dataset",
            revision=revision or None,
            commit_message=f"{mix.tokens} tokens for {mix.target}",
            allow_patterns=files,
            delete_patterns=["data/*"],  # parts of an earlier mix that this one does not have
        )
    except _failures() as error:
        what = " ".join(str(error).split())[:160] or type(error).__name__
        raise CurateError(
            f"{repo}: not pushed ({what}); log in with hf auth login, or name a repository of yours"
        ) from None
    return str(address)


def _failures() -> tuple[type[BaseException], ...]:
    """Return what the client and its HTTP library raise, whichever that library is."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (OSError, ValueError, RuntimeError, HfHubHTTPError, *bases)
