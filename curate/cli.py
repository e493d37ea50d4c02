"""The command line: the group that all commands are in."""

from __future__ import annotations

import click

from curate import terminal
from curate.commands import indexing, machine, mixing, ranking, results, verifying


@click.group(cls=terminal.Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="curate")
def main() -> None:
    """Find the data to train on for a target, mix it to a token budget, and verify the gain.

    \b
    curate init                       write curate.toml for this folder
    curate rank --target proofnet     index if needed, then order the shards
    curate build-mix --budget 100M    write the mix, with its forecast
    curate verify                     train small models, hold them against it

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 3 too much input rejected,
    4 forecast not confirmed or alignment fell, 5 locked by a live run, 6 budget unreachable,
    130/143 interrupted (the same command resumes).
    """


for _command in (
    machine.init,
    indexing.index,
    ranking.rank,
    mixing.build_mix,
    verifying.verify,
    results.report,
    results.push,
    results.show,
    machine.targets,
    machine.doctor,
    machine.demo,
    machine.worker,
):
    main.add_command(_command)
