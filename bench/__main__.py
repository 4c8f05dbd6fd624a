"""`python -m bench NAME [--small] [--json FILE]`; NAME is one of the benchmarks, or all."""

from pathlib import Path

import click

from bench import decide, features, freshness, kafka, ope

BENCHMARKS = {
    "decide": decide.run,
    "freshness": freshness.run,
    "features": features.run,
    "kafka": kafka.run,
    "ope": ope.run,
}


@click.command()
@click.argument("name", type=click.Choice([*BENCHMARKS, "all"]))
@click.option("--small", is_flag=True, help="A few seconds: shows that it works, not how fast the engine is.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too.")
def main(name: str, small: bool, json_path: Path | None) -> None:
    """Run a benchmark, print its table, write its file."""
    for each in BENCHMARKS if name == "all" else (name,):
        report = BENCHMARKS[each](small=small)
        report.show()
        if json_path is not None:
            path = json_path if name != "all" else json_path.with_stem(f"{json_path.stem}-{each}")
            report.write(path)


if __name__ == "__main__":
    main()
