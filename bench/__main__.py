"""`python -m bench NAME [--small] [--json FILE]`; NAME is one of the benchmarks, or all."""

from collections.abc import Callable
from pathlib import Path

import click

from bench import decide, features, freshness, kafka, learning, models, ope, policy
from bench.report import Report

BENCHMARKS: dict[str, Callable[..., Report]] = {
    "decide": decide.run,
    "freshness": freshness.run,
    "features": features.run,
    "kafka": kafka.run,
    "learning": learning.run,
    "models": models.run,
    "ope": ope.run,
    "policy": policy.run,
}


@click.command()
@click.argument("name", type=click.Choice([*BENCHMARKS, "all"]))
@click.option("--small", is_flag=True, help="A few seconds: shows that it works, not how fast the engine is.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too.")
@click.option("--recompute", is_flag=True, help="learning: run other learners again, though what they did is kept.")
def main(name: str, small: bool, json_path: Path | None, recompute: bool) -> None:
    """Run a benchmark, print its table, write its file."""
    for each in BENCHMARKS if name == "all" else (name,):
        options = {"recompute": True} if recompute and each == "learning" else {}
        report = BENCHMARKS[each](small=small, **options)
        report.show()
        if json_path is not None:
            path = json_path if name != "all" else json_path.with_stem(f"{json_path.stem}-{each}")
            report.write(path)


if __name__ == "__main__":
    main()
