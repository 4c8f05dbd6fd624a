"""The demo: a bank's real call log replayed through a running engine, and what that was worth.

    demo_calls    the file as calls                 demo_engine   an engine of its own, ended with the demo
    demo_replay   the calls over gRPC, in order     demo_rivals   what simpler policies would have done
    demo_report   live figures, table, picture

Each call is a customer on the line: the engine decides to pitch the deposit or to leave it. What the customer would
have answered is in the file, and not to pitch is worth 0, so value and regret are exact, not estimated.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import click
import grpc
import orjson
from rich.console import Console

from engine.catalogue import Catalogue
from engine.cli_parts import told
from engine.demo_calls import Call, read_calls
from engine.demo_engine import Engine, running_engine
from engine.demo_replay import Replay
from engine.demo_report import figures_of, live, progress_bar, show
from engine.demo_rivals import rivals
from engine.errors import OpportuneError

EXAMPLE: Final = Path(__file__).parents[1] / "examples" / "bank"
CONFIG: Final = EXAMPLE / "opportune.yaml"
CALLS: Final = EXAMPLE / "bank-additional-full.csv.gz"

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells give it."""
_REFRESH_S: Final = 0.2


@click.command()
@click.option("--calls", type=click.IntRange(min=1), help="Only the first so many calls.  [default: all 41,188]")
@click.option("--data", "data_path", type=click.Path(path_type=Path), help="Empty folder to keep the engine's data in.")
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Calls under way at a time."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there.")
def demo(calls: int | None, data_path: Path | None, concurrency: int, json_path: Path | None) -> None:
    """Replay a bank's real call log through an engine of its own and show what that was worth."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    with told():
        sys.exit(run(console, calls, data_path, concurrency, json_path))


def run(console: Console, calls_max: int | None, data: Path | None, concurrency: int, json_path: Path | None) -> int:
    """Run the demo; returns the exit code. Raises OpportuneError when it cannot be run or the engine fails."""
    calls = _calls(calls_max)
    catalogue = Catalogue.of_file(CONFIG)
    if data is not None and data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise OpportuneError(f"{data} is not empty: what an earlier run has learnt would spoil the comparison")
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise OpportuneError(f"{json_path.parent} is no folder: the results could not be written there")
    offer = catalogue.offers[0]
    replay = Replay(calls, offer.value, offer.contact_cost)
    # What was made so far stays: the collector need not look at it in the middle of a call.
    gc.collect()
    gc.freeze()
    console.print(
        f"{len(calls):,} calls of a bank's campaign (Bank Marketing, Moro, Cortez and Rita 2014, CC BY 4.0).\n"
        f"A yes is worth {offer.value:g}, a pitch costs {offer.contact_cost:g}, silence is worth 0.",
        highlight=False,
    )
    try:
        with _interruptible(), console.status("starting the engine and its store") as status:
            with running_engine(CONFIG, data) as engine:
                address = engine.wait_ready()
                status.stop()
                _play(console, engine, address, replay, concurrency)
                status.update("stopping the engine")
                status.start()
            status.update("fitting what it is compared with")
            others = rivals(catalogue, calls, replay.gain)
    except KeyboardInterrupt:
        console.print(
            f"stopped after {replay.decisions:,} of {len(calls):,} calls; the engine has ended", highlight=False
        )
        return INTERRUPTED
    figures = figures_of(replay, others, concurrency)
    show(console, figures, replay, others)
    if json_path is not None:
        try:
            json_path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise OpportuneError(f"{json_path} cannot be written: {error.strerror}") from error
    return 0


def _calls(calls_max: int | None) -> list[Call]:
    if not CALLS.exists() or not CONFIG.exists():
        raise OpportuneError(f"the demo needs {CONFIG} and {CALLS.name} beside it: run it from a checkout")
    try:
        return read_calls(CALLS)[:calls_max]
    except (OSError, EOFError, ValueError) as error:
        raise OpportuneError(f"{CALLS} cannot be read: {error}") from error


def _play(console: Console, engine: Engine, address: str, replay: Replay, concurrency: int) -> None:
    with progress_bar(console) as progress:
        bar = progress.add_task("", total=len(replay.calls), figures="")

        async def show_figures() -> None:
            while True:
                live(progress, bar, replay)
                await asyncio.sleep(_REFRESH_S)

        async def play() -> None:
            showing = asyncio.create_task(show_figures())
            try:
                await replay.run(address, concurrency)
            finally:
                showing.cancel()
                live(progress, bar, replay)

        try:
            asyncio.run(play())
        except grpc.aio.AioRpcError as error:
            raise OpportuneError(
                f"the engine answered {error.code().name}: {error.details()}\n{engine.last_words()}"
            ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal all raise KeyboardInterrupt, even where a shell had Ctrl-C ignored."""

    def interrupt(_: int, __: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
