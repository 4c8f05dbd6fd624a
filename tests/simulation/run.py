"""The long form of the simulation: `python -m tests.simulation.run --seeds 1000`. A failure prints its seed."""

import logging

import click

from tests.simulation.world import simulate


@click.command()
@click.option("--seeds", default=1_000, show_default=True, help="How many simulations.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--actions", default=10, show_default=True, help="What each of the three callers does.")
def main(seeds: int, first: int, actions: int) -> None:
    logging.disable(logging.CRITICAL)
    with click.progressbar(range(first, first + seeds), label="simulating") as progress:
        for seed in progress:
            simulate(seed, actions)


if __name__ == "__main__":
    main()
