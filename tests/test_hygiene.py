"""What nobody remembers to check: who imports whom, limits and their relations, documents that say what is so."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from engine import limits
from engine.catalogue import Catalogue
from engine.cli import main
from engine.config import parse, version_of
from engine.lifecycle import mermaid
from engine.store import LINKS, PARTS, keys

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [path for package in ("engine", "features", "models") for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", ["features", "models"])
def test_the_pure_packages_import_no_sibling(package: str) -> None:
    siblings = {"engine", "features", "models", "opportune", "bench", "tests"} - {package}
    wrong = {
        (name(path), module)
        for path in SOURCES
        if path.is_relative_to(ROOT / package)
        for module in imports(path)
        if module.split(".")[0] in siblings
    }
    assert wrong == set()


@pytest.mark.parametrize("module", ["asyncio", "socket", "time", "random", "redis", "grpc", "aiohttp", "threading"])
def test_the_pure_modules_touch_no_clock_no_dice_and_no_network(module: str) -> None:
    pure = ["decide", "ledger", "record", "lifecycle", "attribution", "learner", "rules", "catalogue"]
    pure += ["identity", "links", "explorer", "explorewatch", "driftwatch", "cohorts", "fading"]
    pure += ["challengers", "tally", "rivermodel"]
    pure += ["timeline", "timelineview", "cases", "segments"]
    pure += ["experiments", "experiments_schema", "experiment_arms", "lift/comparing"]
    pure += ["contact_policy", "contact_rows", "contact_schema"]
    pure += ["budgets", "budgets_schema", "budgeting", "pacing"]
    pure += ["treatments", "tokens", "formats", "parameters", "placements", "found"]
    pure += ["defaults", "leads/assign", "leads/lead"]
    files = [path for path in SOURCES if not path.is_relative_to(ROOT / "engine")]
    files += [ROOT / "engine" / f"{part}.py" for part in pure]
    assert [name(path) for path in files if module in {found.split(".")[0] for found in imports(path)}] == []


def test_stubs_are_touched_only_at_the_edges() -> None:
    edges = ("gateway", "answer", "service", "rpc", "web", "cli", "demo")
    users = {path.stem for path in SOURCES if any(found.split(".")[0] == "opportune" for found in imports(path))}
    assert {user for user in users if not user.startswith(edges)} == set()
    assert {"gateway", "service", "cli"} <= users


def test_nothing_that_ships_imports_tests_or_benchmarks() -> None:
    users = {name(path) for path in SOURCES if {found.split(".")[0] for found in imports(path)} & {"tests", "bench"}}
    assert users == set()


def test_every_module_says_what_it_is() -> None:
    silent = [name(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert silent == []


def test_every_limit_has_its_unit_in_its_name() -> None:
    """A bound ends in _MAX or _MIN; what it counts or measures stands before that."""
    constants = {name for name in vars(limits) if name.isupper()}
    units = r"(BYTES|MS|ENTRIES|EVENTS?_PER_CALL|SLATE|IDENTITIES|PURPOSES|OFFERS|RULES|FEATURES|FACTS|DECISIONS|"
    units += r"CHALLENGERS|BATCH(ES)?|QUEUE|RETRIES|QUEUED|LETTERS|BACKLOG|TRACKED|RESTARTS|HOPS|TIMES)_?"
    odd = {name for name in constants if not re.search(rf"{units}(MS)?(_MAX|_MIN)?$", name)} - {"PARTITIONS"}
    assert odd == set()
    assert all(isinstance(getattr(limits, name), int) and getattr(limits, name) > 0 for name in constants)


def test_relations_between_limits_that_no_import_checks() -> None:
    """A decision waits for the store for less than Report does, and both for less than a draining server gives."""
    wait_ms = limits.DECIDE_STATE_WAIT_MS_MAX + limits.DECIDE_COMMIT_WAIT_MS_MAX
    assert wait_ms <= limits.WRITE_WAIT_MS_MAX < limits.DRAIN_MS_MAX < limits.STOP_MS_MAX < limits.START_MS_MAX
    # A customer is remembered for longer than an outcome of his may come in.
    assert limits.LATE_OUTCOME_MS_MAX < limits.CUSTOMER_KEY_TTL_MS
    # The largest event of the largest call fits a message.
    assert limits.EVENTS_PER_CALL_MAX * 1_024 <= limits.MESSAGE_BYTES_MAX


def test_every_key_stands_in_the_table_of_keys() -> None:
    """docs/architecture.md shows the same table as engine/store/base.py, and it has every key that keys.py makes."""
    text = (ROOT / "engine" / "store" / "base.py").read_text()
    rows = re.findall(r"^\| `(.+?)` \|.*$", text, re.MULTILINE)
    parts = ("f:<customer>", "l:<customer>", "t:<customer>", "events", "decisions", "folded", "marks")
    parts += ("forgets", "r:<request>", "b:<account>", "leads:<list>", "queue:<list>/<seller>")
    made = {f"{{pN}}{part}" for part in parts}
    made |= {f"{{pN}}{kind}:<customer>" for kind in (PARTS, LINKS)}
    single = (keys.DEAD, keys.POLICY, keys.POLICY_CHANGES, keys.POLICY_KEPT, keys.LEARNER, keys.KAFKA, keys.LAYOUTS)
    single += (keys.META, keys.BUDGETS, keys.VERSIONS, keys.VERSIONS_TRAIL, keys.LEAD_LISTS)
    made |= {key.decode() for key in single}
    assert set(rows) == made | {"config:<version>", "budget:<account>"}
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    assert [row for row in re.findall(r"^\| `.+$", text, re.MULTILINE) if row not in architecture] == []


# --- documents ------------------------------------------------------------------------------------------------------


def blocks(kind: str) -> Iterator[tuple[str, str]]:
    """(document, text) of each fenced block of a kind."""
    for path in DOCS:
        for found in re.finditer(rf"^```{kind}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
            yield name(path), found[1]


def commands(program: str) -> list[tuple[str, list[str]]]:
    """(document, words) of each line of the ```sh blocks that runs a program."""
    found = []
    for document, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line):
                if re.match(rf"\s*(\$ )?(\S*/)?{program}(\s|$)", part):
                    words = shlex.split(part.strip().removeprefix("$ "), comments=True)
                    found.append((document, words[1:]))
    return found


def test_every_opportune_command_in_the_documents_exists() -> None:
    """Each command parses with the options and arguments shown, without being run."""
    found = commands("opportune")
    assert len(found) >= 5
    for document, words in found:
        if words and words[0].startswith("-"):
            assert words[0] in ("--help", "--version"), f"{document}: opportune {' '.join(words)}"
            continue
        command = main.get_command(click.Context(main), words[0])
        assert command is not None, f"{document}: there is no command {words[0]!r}"
        try:
            command.make_context(words[0], words[1:])
        except click.exceptions.Exit as ended:
            assert ended.exit_code == 0
        except click.ClickException as error:
            raise AssertionError(f"{document}: opportune {' '.join(words)}: {error.format_message()}") from error


def test_every_command_is_documented() -> None:
    documented = {words[0] for document, words in commands("opportune") if document == "docs/commands.md"}
    assert set(main.list_commands(click.Context(main))) - documented == set()


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = commands("make")
    assert len(found) >= 1
    assert {(document, word) for document, words in found for word in words if word not in targets} == set()


def test_the_lifecycle_is_drawn_from_the_table() -> None:
    [drawn] = [text for document, text in blocks("mermaid") if document == "docs/lifecycle.md"]
    assert drawn.strip() == mermaid()


def test_every_example_of_a_configuration_compiles() -> None:
    examples = [text for document, text in blocks("yaml") if document == "docs/configuration.md"]
    assert len(examples) >= 2
    for text in examples:
        data = text.encode()
        config = parse(data, "docs/configuration.md")
        assert Catalogue.compile(config, version_of(data), data).offer_ids


def test_every_link_in_the_documents_leads_somewhere() -> None:
    broken = [
        (name(path), target)
        for path in DOCS
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert broken == []
