"""Draw the figures of the pages from what a run published: python docs/figures.py WORKSPACE NAME.

Writes figures/NAME-ranking.svg, -map, -mix, -forecast, -arms and -curves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from curate.report.curves import arms_chart, forecast_chart, loss_chart
from curate.report.plots import mix_chart, ranking_chart
from curate.report.shard_map import map_chart
from curate.stages import open_artefact

FOLDER = Path(__file__).parent / "figures"


def main(workspace: Path, name: str) -> None:
    """Write the figures of one workspace."""
    index = open_artefact("index", workspace=workspace)
    mix = open_artefact("mix", workspace=workspace)
    ranking = open_artefact("ranking", workspace=workspace)
    verification = open_artefact("verification", workspace=workspace)
    FOLDER.mkdir(exist_ok=True)
    for kind, chart in {
        "ranking": ranking_chart(ranking, standalone=True),
        "map": map_chart(ranking, standalone=True),
        "mix": mix_chart(mix, index=index, standalone=True),
        "forecast": forecast_chart(verification, standalone=True),
        "arms": arms_chart(verification, standalone=True),
        "curves": loss_chart(verification, standalone=True),
    }.items():
        (FOLDER / f"{name}-{kind}.svg").write_text(chart, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
