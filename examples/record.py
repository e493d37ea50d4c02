"""Run the demo and keep what it printed: python examples/record.py [FOLDER] (make record).

Writes examples/demo.txt (all of stdout; only the path of the folder is left out), the block of
the README between its marks, the figures of the pages and the screenshots of the report. With a
FOLDER that holds a finished demo, nothing is run again.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRANSCRIPT = Path(__file__).with_name("demo.txt")
BLOCK = re.compile(r"<!-- demo -->.*?<!-- /demo -->", re.DOTALL)
FIGURES = ROOT / "docs" / "figures.py"


def run_demo(folder: Path) -> str:
    """Run the demo as a person would, in a folder of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "curate", "demo", "--folder", "demo"],
        cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.replace(f"{folder.resolve()}/", "")


def readme_with(readme: str, transcript: str) -> str:
    """Return the README with the transcript in its block; ends of lines lose their spaces."""
    text = "\n".join(line.rstrip() for line in transcript.strip("\n").splitlines())
    return BLOCK.sub(
        lambda _: f"<!-- demo -->\n\n```text\n$ curate demo\n{text}\n```\n\n<!-- /demo -->", readme
    )


def main(folder: Path) -> None:
    """Record a demo: transcript, README, figures."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "demo.txt"
    if not kept.is_file():
        kept.write_text(run_demo(folder), encoding="utf-8")
    TRANSCRIPT.write_text(kept.read_text(encoding="utf-8"), encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme_with(readme.read_text("utf-8"), TRANSCRIPT.read_text("utf-8"))
    readme.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, FIGURES, folder / "demo" / ".curate", "demo"], check=True)
    shots = [(folder / "demo" / "report.html").resolve(), FIGURES.with_name("figures")]
    subprocess.run([sys.executable, "-m", "tests.browser", *shots], cwd=ROOT, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/record"))
