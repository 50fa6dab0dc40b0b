"""Time the grading of a class: `python -m benchmarks.grading`.

Thirty learners hand in the course's own solutions, in turn those of each lesson, two of
which run at once. The figures are added to `benchmarks/results.json`.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measure import ROOT, keep, machine
from qwen_course.exercises import grade


def hand_in(folder: Path, learners: int) -> None:
    """Put a solution into a folder of each learner."""
    solutions = sorted(ROOT.glob("solutions/*.ipynb"))
    for number in range(learners):
        (folder / f"learner-{number:02}").mkdir()
        solution = solutions[number % len(solutions)]
        shutil.copy(solution, folder / f"learner-{number:02}")


def measure(learners: int, jobs: int) -> dict:
    """Grade a class and return what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hand_in(folder, learners)
        began = time.perf_counter()
        grades = grade.grade(folder, folder / "out", jobs)
        seconds = time.perf_counter() - began
    verdicts = [one.status for graded in grades.graded for one in graded.verdicts]
    return {
        "submissions": len(grades.graded),
        "at_once": jobs,
        "seconds": round(seconds),
        "median_seconds_of_one": round(
            statistics.median(one.run.seconds for one in grades.graded), 1
        ),
        "right": f"{verdicts.count('right')} of {len(verdicts)}",
        "limited": sorted({one.run.limit for one in grades.graded if one.run.limit}),
    }


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learners", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at once")
    options = parser.parse_args()
    figures = measure(options.learners, options.jobs)
    results = {**figures, "machine": machine()}
    keep(grading=results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
