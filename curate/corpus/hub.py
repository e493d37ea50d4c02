"""Data sets of the Hugging Face hub, each resolved to a commit before a byte is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import datasets
import huggingface_hub
import msgspec
import pyarrow as pa
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from curate.errors import USAGE, CurateError
from curate.store.fingerprint import digest_bytes, digest_file
from curate.store.publish import publish_json, publishing, read_json_if_whole

T = TypeVar("T")

TIMEOUT_S = 10.0
SHUFFLED = 10_000
"""Records that a sample is drawn among at a time, besides the order of the files."""

FAILURES: tuple[type[BaseException], ...] = (
    OSError,
    ValueError,
    RuntimeError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
"""What the client and its HTTP library raise, whichever that library is."""

_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]*))?(?::(?P<split>[\w.-]+))?"
    r"(?:@(?P<revision>[\w./-]+))?(?:#(?P<sample>\d+k?))?"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set as the user named it."""

    repo: str
    config: str  # "" is the only or the default one
    split: str  # "" is train, or the only one
    revision: str  # a commit, tag or branch; "" is the default branch
    sample: int = 0  # records, drawn from a shuffled stream; 0 is all of them


@dataclass(frozen=True, slots=True)
class Spool:
    """What a spooled data set is; lies beside it as JSON."""

    repo: str
    commit: str
    config: str
    split: str
    records: int
    digest: str  # blake2b of the spooled file


def parse_hub_name(name: str) -> HubName:
    """Take `hf:org/name[:config[:split]][@revision][#records]` apart.

    Raises:
        CurateError: another shape, or a path here goes by that name.

    Example:
        >>> parse_hub_name("hf:openai/gsm8k:main:test@v1#20k")
        HubName(repo='openai/gsm8k', config='main', split='test', revision='v1', sample=20000)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise CurateError(
            f"{name}: not a hub name; write hf:org/name[:config[:split]][@revision][#records]",
            exit_code=USAGE,
        )
    parts = {key: value or "" for key, value in match.groupdict().items()}
    if set(parts["repo"].split("/")) & {".", ".."} or Path(parts["repo"]).exists():
        # the library would read that instead, and call it by the hub's name
        raise CurateError(
            f"{name}: {parts['repo']} is also a path here; name it without hf: to read it, or run "
            "from another folder",
            exit_code=USAGE,
        )
    wanted = parts.pop("sample")
    sample = int(wanted.removesuffix("k") or 0) * (1_000 if wanted.endswith("k") else 1)
    if wanted and not sample:  # 0 stands for all records
        raise CurateError(f"{name}: a sample of no record; leave # out for all", exit_code=USAGE)
    return HubName(**parts, sample=sample)


def resolve_commit(name: HubName) -> str:
    """Return the commit (40 hex digits) that a name stands for now.

    Raises:
        CurateError: no such data set or revision, or the hub cannot be reached.
    """
    try:
        info = huggingface_hub.HfApi().dataset_info(
            name.repo, revision=name.revision or None, timeout=TIMEOUT_S
        )
    except (RepositoryNotFoundError, RevisionNotFoundError):
        at = f" at {name.revision}" if name.revision else ""
        raise CurateError(
            f"hf:{name.repo}: no such data set on the hub{at}, or it is not public"
        ) from None
    except FAILURES as error:
        raise _unreachable(name.repo, error) from None
    return str(info.sha)


def hub_answers() -> bool:
    """Say whether there is a hub: asked once, where its client asks six times for each file."""
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=TIMEOUT_S)
    except FAILURES:
        return False
    return True


def read_hub_rows(name: HubName, *, commit: str) -> Iterator[dict[str, Any]]:
    """Stream the records of one split, none kept: in order, or a seeded sample of them.

    A sample is the first records of the stream with its files in random order and its records
    shuffled 10,000 at a time, which the library takes from up to ten files at once: of these the
    beginnings are downloaded, and no more.

    Raises:
        CurateError: no such config or split, or the connection failed.
    """
    split = name.split or _default_split(name, commit)
    stream = _translated(
        name.repo,
        lambda: iter(
            _sampled(
                datasets.load_dataset(
                    name.repo, name.config or None, split=split, revision=commit, streaming=True
                ),
                name.sample,
            )
        ),
    )
    while True:
        row = _translated(name.repo, lambda: next(stream, None))
        if row is None:
            return
        yield row


def spool_dataset(given: str, *, workspace: Path) -> tuple[Path, str]:
    """Stream a data set once into `workspace/sources`, and name the file and its source.

    The file is named by repository, config, split and commit; one that lies there and still has
    its digest is used as it is, also without the hub where the commit is written out in full.

    Returns:
        Path of the jsonl.zst file, and the source.

    Raises:
        CurateError: see `resolve_commit` and `read_hub_rows`.
    """
    name = parse_hub_name(given)
    full = re.fullmatch(r"[0-9a-f]{40}", name.revision)
    commit = name.revision if full else resolve_commit(name)
    source = "-".join(part for part in (name.repo.split("/")[-1], name.config, name.split) if part)
    which = [name.repo, name.config, name.split, commit, *([name.sample] if name.sample else [])]
    key = digest_bytes(msgspec.json.encode(which))[:16]
    path = workspace / "sources" / f"{source}-{key}.jsonl.zst"
    card = path.with_name(f"{source}-{key}.json")
    known = read_json_if_whole(card, Spool)
    if known and path.is_file() and known.digest == digest_file(path):
        return path, source
    with publishing(path) as temporary:
        records = _write_rows(temporary, read_hub_rows(name, commit=commit))
    spool = Spool(
        repo=name.repo,
        commit=commit,
        config=name.config,
        split=name.split,
        records=records,
        digest=digest_file(path),
    )
    publish_json(card, spool)
    return path, source


def fetch_file(repo: str, file: str, *, revision: str) -> Path:
    """Return a file of a data set at a pinned commit, from the hub's cache or from the hub.

    Raises:
        CurateError: no such file, or the hub cannot be reached.
    """
    cached = huggingface_hub.try_to_load_from_cache(
        repo, file, revision=revision, repo_type="dataset"
    )
    if isinstance(cached, str):
        return Path(cached)
    # asked first because a download without a network retries for half a minute
    resolve_commit(HubName(repo=repo, config="", split="", revision=revision))
    return Path(
        _translated(
            repo,
            lambda: huggingface_hub.hf_hub_download(
                repo, file, revision=revision, repo_type="dataset"
            ),
        )
    )


def find_reachable(wanted: Mapping[str, tuple[str, str, Sequence[str]]]) -> dict[str, str]:
    """Say of each data set where its files can be read now.

    Args:
        wanted: name → (repository, commit or "", files).

    Returns:
        name → "cache" (the hub's cache on this machine holds them), "hub" (the hub answers, and
        has that commit), or "" (neither).
    """
    found = {
        name: "cache" if _cached(repo, revision, names) else ""
        for name, (repo, revision, names) in wanted.items()
    }
    ask = [name for name, where in found.items() if not where]
    first = _ask(*wanted[ask[0]][:2]) if ask else None
    if first is None:  # one question tells whether there is a hub at all
        return found
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = [first, *pool.map(lambda name: _ask(*wanted[name][:2]), ask[1:])]
    return found | {name: "hub" for name, yes in zip(ask, answers, strict=True) if yes}


def _cached(repo: str, revision: str, names: Sequence[str]) -> bool:
    return bool(revision) and all(
        isinstance(
            huggingface_hub.try_to_load_from_cache(
                repo, name, revision=revision, repo_type="dataset"
            ),
            str,
        )
        for name in names
    )


def _ask(repo: str, revision: str) -> bool | None:
    """Say whether the hub has a data set at a commit; None where no hub answers."""
    try:
        resolve_commit(HubName(repo=repo, config="", split="", revision=revision))
    except CurateError as error:
        return False if "no such data set" in str(error) else None
    return True


def _sampled(stream: Any, sample: int) -> Any:
    return stream.shuffle(seed=0, buffer_size=SHUFFLED).take(sample) if sample else stream


def _default_split(name: HubName, commit: str) -> str:
    splits = _translated(
        name.repo,
        lambda: datasets.get_dataset_split_names(name.repo, name.config or None, revision=commit),
    )
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else str(splits[0])
    raise CurateError(
        f"hf:{name.repo}: has the splits {', '.join(splits)}; write hf:{name.repo}:CONFIG:SPLIT"
    )


def _write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as stream:
        for row in rows:
            stream.write(msgspec.json.encode(row, enc_hook=str) + b"\n")
            count += 1
    return count


def _translated(repo: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except FAILURES as error:
        raise _unreachable(repo, error) from None


def _unreachable(repo: str, error: BaseException) -> CurateError:
    what = shorten(str(error), 160, placeholder=" …") or type(error).__name__
    then = "name local files or a folder instead, or for a target the folder that holds it "
    then += "(--data-dir)"
    if type(error) is ValueError:  # as the library tells of a configuration or split
        then = f"write hf:{repo}:CONFIG:SPLIT"
    return CurateError(f"hf:{repo}: cannot be read from the hub ({what}); {then}")
