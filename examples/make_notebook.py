"""Write and run the notebooks: python examples/make_notebook.py [tutorial|finetuning].

They are kept as text here, so that a change is read as a change; the files beside it are what a
run made of them, outputs included. About five minutes each on two cores.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIAL = [
    """# Which of my data should I train on?

The whole job in Python, on text that every installation has. Nothing is downloaded.""",
    """from pathlib import Path

import curate
from curate.corpus.example import write_example
from curate.demo import demo_settings

home = Path("notebook")
example = write_example(home)
settings = demo_settings(example.inputs, f"example={example.select},{example.eval}")
print(len(example.kinds), "sources; the target is docstrings that none of them holds")""",
    """## Embed every shard

One Task2Vec embedding for each of four sub-batches of disjoint documents.""",
    """index = curate.index(settings=settings, workspace=home / ".curate")
print(f"{len(index.shards)} shards, {sum(s.shard.n_tokens for s in index.shards):,} tokens")""",
    """## Rank them

With 95 % intervals. A tie is said, not hidden.""",
    """ranking = curate.rank(settings=settings, workspace=home / ".curate")
for shard in ranking.shards:
    print(f"{shard.rank:3} {shard.shard:20} {shard.alignment:.3f}"
          f"  {shard.low:.3f} to {shard.high:.3f}  rank {shard.rank_low} to {shard.rank_high}")""",
    """## Build the mix

Exactly so many tokens; the drop in loss is forecast before anything trains.""",
    """mix = curate.build_mix(settings=settings, workspace=home / ".curate", out=home / "mix")
print(f"{mix.tokens:,} tokens:", mix.sources)
cast = mix.forecast
print(f"forecast {cast.drop:+.2f} ({cast.low:+.2f} to {cast.high:+.2f})")""",
    """## Is it true?

Small models on the mix and on controls of equal size, measured on the eval split.""",
    """verification = curate.verify(settings=settings, workspace=home / ".curate")
print(f"{verification.verdict}: {verification.sentence}")""",
    """from IPython.display import SVG, display

from curate.report.curves import loss_chart

display(SVG(loss_chart(verification, standalone=True)))""",
    """report = curate.write_report(workspace=home / ".curate", out=home / "report.html")
print(report)""",
]


FINETUNING = [
    """# Which of these Hugging Face datasets should I fine-tune on?

Six candidates, one goal, a budget of tokens. On your machine a candidate is
`"hf:org/name#20k"`: a seeded sample of 20,000 records is streamed, nothing else is downloaded.

**This run had no hub.** Six folders of text that every Python installation carries stand in for
six datasets; only the names differ, the rest is what you would run.""",
    """from pathlib import Path

import curate
from curate.corpus.example import write_example
from curate.settings import (
    CorpusSettings, EmbedSettings, MixSettings, TargetSettings, VerifySettings,
)

home = Path("notebook") / "finetuning"
example = write_example(home)
names = ["sklearn_docstrings", "numpy_docstrings", "python_library", "language_reference",
         "licences", "package_pages"]
candidates = [path for path in sorted((home / "corpus").glob("*.jsonl")) if path.stem in names]
# candidates = ["hf:org/one#20k", "hf:org/two:config:train#20k", ...]
[path.stem for path in candidates]""",
    """## The goal

What the model should become good at: here, writing the documentation of scientific functions.
The select split is what ranking sees; the eval split is kept for the proof.""",
    """settings = curate.Settings(
    corpus=CorpusSettings(inputs=tuple(map(str, candidates))),
    embed=EmbedSettings(batch_tokens=2_048),
    target=TargetSettings(name=f"docstrings={example.select},{example.eval}"),
    mix=MixSettings(budget=60_000),
    verify=VerifySettings(size="tiny", seeds=2, calibration=2),
)
workspace = home / ".curate"
index = curate.index(settings=settings, workspace=workspace)
index""",
    """## Rank them""",
    """ranking = curate.rank(settings=settings, workspace=workspace)
ranking.to_pandas()[["rank", "source", "tokens", "alignment", "low", "high"]]""",
    """That went by token pairs. Would the gradients of the probe have said the same? Where the two
agree, believe them more.""",
    """import dataclasses

by_probe = dataclasses.replace(settings, rank=dataclasses.replace(settings.rank, method="task2vec"))
fisher = curate.rank(settings=by_probe, workspace=workspace)
[line.source for line in fisher.shards]""",
    """## Take 60,000 tokens

Nothing that holds an item of the target, and no copies.""",
    """curate.rank(settings=settings, workspace=workspace)  # a mix is built from the latest one
mix = curate.build_mix(settings=settings, workspace=workspace, out=home / "mix")
mix""",
    """## Is it true?

Small models from scratch, on this mix and on as many random tokens of all six.""",
    """verification = curate.verify(settings=settings, workspace=workspace)
verification.to_pandas()[["arm", "loss", "low", "high", "seeds"]]""",
    """print(verification.verdict, "-", verification.sentence)
print(curate.write_report(workspace=workspace, out=home / "report.html"))""",
]

BOOKS = {"tutorial": TUTORIAL, "finetuning": FINETUNING}


def main(names: list[str]) -> None:
    """Build each notebook, run it in a clean kernel, and keep it with its outputs."""
    for name in names or BOOKS:
        book = nbformat.v4.new_notebook()
        for number, text in enumerate(BOOKS[name]):
            is_text = text.startswith("#") or text.endswith(".")
            make = nbformat.v4.new_markdown_cell if is_text else nbformat.v4.new_code_cell
            book.cells.append(make(text, id=f"cell-{number}"))
        NotebookClient(book, timeout=3600, kernel_name="python3").execute()
        for cell in book.cells:
            cell.metadata.clear()  # times of execution differ from run to run
            if cell.cell_type == "code":  # a library's advice, with the paths of this machine
                cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        nbformat.write(book, Path(__file__).with_name(f"{name}.ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
