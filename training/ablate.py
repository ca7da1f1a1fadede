"""Train and compare the arms of a plan: ``python -m training.ablate training/configs/ablate.toml``.

``--page docs/results.md`` puts tables and pictures there. Run it again after a kill: finished embedders, arms and
scored mixtures are kept. An arm that fails leaves the others to go on, and the status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.ablation_page import Results, tables, write_page
from training.ablation_run import Ablation, Runner, in_a_process
from training.ablation_score import score_arm
from training.arms import Plan, read_plan
from training.config import TrainConfig, read_config
from training.manifest import read_mixtures


def main(arguments: list[str] | None = None, run: Runner = in_a_process) -> int:
    """Entry point; returns the exit status: 1 when an arm failed, 2 for a plan that cannot run."""
    parser = argparse.ArgumentParser(prog="python -m training.ablate", description=__doc__)
    parser.add_argument("plan", type=Path, help="TOML file of the arms")
    parser.add_argument("--out", type=Path, default=Path("runs/ablate"), help="folder of embedders, runs and rows")
    parser.add_argument("--arms", default="", help="only these, by name, with commas; what they need is added")
    parser.add_argument("--seeds", default="", help="seeds, with commas, instead of the plan's")
    parser.add_argument("--steps", type=int, help="steps of every arm, to try a plan; give it an --out of its own")
    parser.add_argument("--redo", action="store_true", help="begin anew what was made with another config")
    parser.add_argument("--tables", action="store_true", help="train and score nothing, make the tables from the rows")
    parser.add_argument("--page", type=Path, help="page to put tables and pictures into, between its markers")
    options = parser.parse_args(arguments)
    try:
        plan = read_plan(options.plan)
        seeds = tuple(int(seed) for seed in options.seeds.split(",")) if options.seeds else plan.seeds
        shared = {} if options.steps is None else {"steps": options.steps}
        names = tuple(name for name in options.arms.split(",") if name)
        ablation = Ablation(plan, options.out, shared=shared, redo=options.redo, run=run)
        failures = [] if options.tables else run_arms(ablation, names, seeds)
        report(plan, options.out, seeds, options.page, command=f"python -m training.ablate {options.plan}")
    except ValueError as error:
        print(f"training.ablate: {error}", file=sys.stderr)
        return 2
    for failure in failures:
        print(f"training.ablate: {failure}", file=sys.stderr)
    return 1 if failures else 0


def run_arms(ablation: Ablation, names: tuple[str, ...], seeds: tuple[int, ...]) -> list[str]:
    """Train and score the chosen arms, all of a seed before the next; returns what failed.

    Raises:
        ValueError: there is no arm of a name.
    """
    failures = []
    arms = ablation.plan.chosen(names)
    for seed in seeds:
        for arm in arms:
            try:
                ablation.train(arm, seed)
                for name in ablation.plan.lists_of(arm):
                    score_arm(
                        ablation.folder(arm, seed), ablation.config(arm, seed), name, bss=ablation.plan.bss,
                        limit=ablation.plan.limit,
                    )  # fmt: skip
            except ValueError as error:
                failures.append(f"arm {arm.name}, seed {seed}: {error}")
    return failures


def report(plan: Plan, out: Path, seeds: tuple[int, ...], page: Path | None, *, command: str) -> None:
    """Print the tables and, with a page, put them and the pictures into it."""
    sounds = Path(read_config(TrainConfig, None, plan.base).sounds)
    lists = {name for arm in plan.arms.values() for name in plan.lists_of(arm)}
    sizes = {name: min(len(read_mixtures(sounds / name)), plan.limit or sys.maxsize) for name in lists}
    results = Results(plan, out, seeds, sizes)
    body = tables(results)
    print(body)
    if page is None:
        return
    from training.ablation_plots import draw

    pictures = draw(results, page.with_suffix(""))
    shown = [f"![{path.stem}]({path.relative_to(page.parent).as_posix()})" for path in pictures]
    write_page(page, "\n\n".join([f"Written by `{command} --page {page}`.", body, *shown]))


if __name__ == "__main__":
    sys.exit(main())
