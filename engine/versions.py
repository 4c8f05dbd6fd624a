"""The versions of the catalogue and the policy: proposed, approved, in force, kept to go back to.

    apply ──► in force                      governance.approvals of the version in force: 0
    apply ──► proposed ── approve ──► in force                                            1 or more, not by the author
    in force ── rollback ──► one that was in force before

The history is one value of the store: whoever changes it has seen it as it was, else it is read again. Every change
appends to the trail who did what, when, and what was in force before and after. Texts are kept for good, because
decisions name them; a version that is retired is only no longer to be gone back to.
"""

import asyncio
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, NamedTuple, Self

import orjson

from engine import limits
from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.errors import ConfigError, InvalidArgument, NotAllowed, NotFound, Overloaded, Unavailable
from engine.layouts import keep_layout
from engine.store.base import PolicyBoard
from engine.versions_check import compiled

_ACTIVE: Final = "_active"
_REVISION: Final = "_revision"
_TRIES_MAX: Final = 8
_SHORTEST_PREFIX: Final = 4
STARTED: Final = "start"
"""Who brought a version in that a process was started with."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the configuration, in the history."""

    version: str
    name: str
    approvals: int
    """That it asks of those who come after it."""
    by: str
    """Who proposed it last."""
    note: str
    proposed_ms: int
    base: str
    """What was in force when it was proposed; "" if nothing was."""
    proposed: bool
    """Whether it waits for approval."""
    approved_by: tuple[str, ...] = ()
    active_ms: int = 0
    """When it was put in force last; 0: never."""
    replaced: str = ""
    """What was in force before it, when it was applied or approved."""
    retired: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """All versions that a store knows."""

    revision: bytes = b""
    active: str = ""
    versions: Mapping[str, Version] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Mapping[str, bytes]) -> Self:
        """From the fields of `PolicyBoard.read_versions`."""
        rows = [orjson.loads(data) for name, data in fields.items() if not name.startswith("_")]
        versions = [Version(**{**row, "approved_by": tuple(row["approved_by"])}) for row in rows]
        ordered = sorted(versions, key=lambda version: (version.proposed_ms, version.version))
        active = fields.get(_ACTIVE, b"").decode()
        return cls(fields.get(_REVISION, b""), active, {version.version: version for version in ordered})

    @property
    def in_force(self) -> Version | None:
        """The version in force."""
        return self.versions.get(self.active)

    @property
    def approvals(self) -> int:
        """That another version needs now."""
        return 0 if self.in_force is None else self.in_force.approvals

    def state_of(self, version: Version) -> str:
        """Where a version stands, in words."""
        if version.version == self.active:
            return "active"
        if version.proposed:
            return f"proposed, {len(version.approved_by)} of {max(1, self.approvals)} approvals"
        return "retired" if version.retired else "kept" if version.active_ms else "never in force"

    def find(self, given: str) -> Version:
        """The version of a hash, or of the beginning of one. Raises NotFound or InvalidArgument."""
        if given == "active":
            given = self.active
        found = [row for name, row in self.versions.items() if given and name.startswith(given.lower())]
        if not found or (len(given) < _SHORTEST_PREFIX):
            newest = ", ".join(list(self.versions)[-3:]) or "none"
            raise NotFound(f"version {given[:40]!r}: no such version is known here; the newest are {newest}")
        if len(found) > 1:
            both = ", ".join(row.version for row in found[:3])
            raise InvalidArgument(f"version {given!r}: begins {len(found)} versions ({both}), expected more of it")
        return found[0]


class Changed(NamedTuple):
    """What a change led to."""

    version: str
    state: str
    """"active", "proposed" or "unchanged"."""
    before: str
    """The version that was in force."""
    missing: int
    """Approvals that it still needs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the trail."""

    ms: int
    who: str
    what: str
    version: str
    before: str
    """What was in force before, and after:"""
    after: str
    note: str = ""


def name_of(given: str) -> str:
    """A name of a person as the trail keeps it. Raises InvalidArgument."""
    name = unicodedata.normalize("NFKC", given).strip()
    if not name or len(name.encode()) > limits.ID_BYTES_MAX or not name.isprintable():
        raise InvalidArgument(f"by: {given[:40]!r}, expected the name of who does it, 1 to {limits.ID_BYTES_MAX} bytes")
    return name


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


class Versions:
    """The history of one store."""

    def __init__(
        self,
        board: PolicyBoard,
        clock: Callable[[], int],
        check: Callable[..., Catalogue] = compiled,
    ) -> None:
        self._board = board
        self._clock = clock
        self._check = check

    async def history(self) -> History:
        """All versions. Raises StoreError."""
        return History.read(await self._board.read_versions())

    async def trail(self) -> list[Step]:
        """What was done, oldest first. Raises StoreError."""
        return [Step(**orjson.loads(data)) for _, data in await self._board.version_changes("", 0)]

    async def text_of(self, version: str) -> bytes:
        """The text of a version. Raises NotFound if it is gone, StoreError."""
        text = await self._board.load_config(version)
        if text is None:
            raise NotFound(f"version {version}: its text is no longer in the store, so it cannot be put in force")
        return text

    async def propose(
        self, text: bytes, by: str, note: str = "", *, name: str = "configuration", dry_run: bool = False
    ) -> Changed:
        """Propose a text; without need for approval it is in force at once.

        Raises ConfigError with all that is wrong with it, InvalidArgument, StoreError.
        """
        who, note = name_of(by), _note(note)
        catalogue = await asyncio.to_thread(self._check, text, name, new=True)
        config = catalogue.config
        kept = False
        for _ in range(_TRIES_MAX):
            history = await self.history()
            needed, before = history.approvals, history.active
            if catalogue.version == before:
                return Changed(catalogue.version, "unchanged", before, 0)
            known = history.versions.get(catalogue.version)
            state = "proposed" if needed else "active"
            if known is None and len(history.versions) >= limits.VERSIONS_KEPT_ENTRIES_MAX:
                raise Overloaded(f"the history holds {len(history.versions)} versions, all that it may")
            if dry_run:
                return Changed(catalogue.version, state, before, needed)
            if not kept:
                # Before it is in force, so that whoever reads its records finds how.
                for kind, layout in catalogue.layouts.items():
                    await keep_layout(self._board, catalogue.version, text, layout, kind)
                kept = True
            now_ms = self._clock()
            row = Version(
                catalogue.version,
                config.name,
                config.governance.approvals,
                who,
                note,
                now_ms,
                before,
                proposed=bool(needed),
                active_ms=known.active_ms if known is not None else 0,
                replaced=known.replaced if known is not None else "",
            )
            if not needed:
                row = replace(row, active_ms=now_ms, replaced=before)
            what = "propose" if needed else "apply"
            if await self._change(history, row, who, what, note, active=row.version if not needed else before):
                return Changed(row.version, state, before, needed)
        raise _too_often()

    async def approve(self, given: str, by: str, note: str = "") -> Changed:
        """Approve a proposal, and put it in force when that was the last approval it needed.

        Raises NotFound, NotAllowed, ConfigError if it cannot be served with any more, StoreError.
        """
        who, note = name_of(by), _note(note)
        for _ in range(_TRIES_MAX):
            history = await self.history()
            row, before = history.find(given), history.active
            version = row.version
            if version == before:
                return Changed(version, "unchanged", before, 0)
            if not row.proposed:
                raise NotAllowed(f"version {version}: is {history.state_of(row)}, expected one that is proposed")
            if row.base != before:
                raise NotAllowed(
                    f"version {version}: was proposed in place of {row.base or 'nothing'}, but {before} is in force by "
                    "now; apply it again, so that its author has seen what it replaces"
                )
            if history.approvals and _same(row.by, who):
                raise NotAllowed(
                    f"version {version}: {who} proposed it and cannot approve it; the configuration in force asks for "
                    f"{history.approvals} approval{'s' if history.approvals > 1 else ''} by others "
                    "(governance.approvals)"
                )
            if any(_same(other, who) for other in row.approved_by):
                raise NotAllowed(f"version {version}: {who} has approved it already; another approval is needed")
            approved = (*row.approved_by, who)
            missing = max(0, history.approvals - len(approved))
            row = replace(row, approved_by=approved)
            if not missing:
                await self._ready(row)
                row = replace(row, proposed=False, retired=False, active_ms=self._clock(), replaced=before)
            if await self._change(history, row, who, "approve", note, active=before if missing else version):
                return Changed(version, "proposed" if missing else "active", before, missing)
        raise _too_often()

    async def rollback(self, given: str, by: str, note: str = "") -> Changed:
        """Put a version in force that was before; "": the one that the version in force has replaced.

        Needs no approval, as that version had it. Raises NotFound, NotAllowed, ConfigError, StoreError.
        """
        who, note = name_of(by), _note(note)
        for _ in range(_TRIES_MAX):
            history = await self.history()
            before = history.active
            if not given and not (history.in_force and history.in_force.replaced):
                raise NotAllowed(f"version {before or 'of nothing'} replaced no other: name the one to go back to")
            row = history.find(given or (history.in_force.replaced if history.in_force else ""))
            if row.version == before:
                return Changed(before, "unchanged", before, 0)
            if row.retired:
                raise NotAllowed(f"version {row.version}: was retired, so it cannot be gone back to; apply its file")
            if not row.active_ms:
                raise NotAllowed(f"version {row.version}: was never in force, so there is nothing to go back to")
            if row.approvals < history.approvals:
                raise NotAllowed(
                    f"version {row.version}: asks for fewer approvals ({row.approvals}) than the one in force "
                    f"({history.approvals}); apply its file, to have it approved"
                )
            await self._ready(row)
            row = replace(row, proposed=False, active_ms=self._clock())
            if await self._change(history, row, who, "rollback", note, active=row.version):
                return Changed(row.version, "active", before, 0)
        raise _too_often()

    async def retire(self, given: str, by: str, note: str = "") -> Changed:
        """Take a version out of those that can be gone back to, or a proposal back.

        Its text stays: decisions name it. Raises NotFound, NotAllowed if it is in force, StoreError.
        """
        who, note = name_of(by), _note(note)
        for _ in range(_TRIES_MAX):
            history = await self.history()
            row = history.find(given)
            if row.version == history.active:
                raise NotAllowed(f"version {row.version}: is in force; put another one in its place first")
            row = replace(row, proposed=False, retired=True)
            if await self._change(history, row, who, "retire", note, active=history.active):
                return Changed(row.version, "retired", history.active, 0)
        raise _too_often()

    async def settle(self, version: str, read: Callable[[], bytes]) -> tuple[str, bytes, str]:
        """(version, text, what to tell) of what a process serves with that was started with a file.

        `version` is that of the file when the engine was started, `read` reads it; a file that was edited since is not
        taken for it.

        A file that the store has not seen is put in force, if that needs no approval. One that it has seen does not
        turn back what was put in force since. Raises NotAllowed, NotFound if the text in force is gone, StoreError.
        """
        for _ in range(_TRIES_MAX):
            history = await self.history()
            before, known = history.active, history.versions.get(version)
            if version == before:
                return version, await self._board.load_config(version) or read(), ""
            if known is not None:
                said = f"the file is version {version}, {history.state_of(known)}; version {before} is in force"
                return before, await self.text_of(before), f"{said}: to serve with the file, apply it"
            if history.approvals:
                raise NotAllowed(
                    f"the file is version {version}, which nobody has proposed, and version {before} in force asks for "
                    f"{history.approvals} approvals: start with the file in force, then propose this one with "
                    "opportune apply"
                )
            text = read()
            if version_of(text) != version:
                raise NotAllowed(f"the file was version {version} when the engine was started, and has changed since")
            config = await asyncio.to_thread(parse, text)
            await self._board.save_config(version, text)
            now_ms, approvals = self._clock(), config.governance.approvals
            row = Version(
                version, config.name, approvals, STARTED, "", now_ms, before, False, active_ms=now_ms, replaced=before
            )
            if await self._change(history, row, STARTED, "start", "", active=version):
                return version, text, f"version {version} is in force from now on, in place of {before or 'nothing'}"
        raise _too_often()

    async def _ready(self, row: Version) -> None:
        """Raise ConfigError or NotFound if a version cannot be served with (any more)."""
        text = await self.text_of(row.version)
        try:
            await asyncio.to_thread(self._check, text, row.version)
        except ConfigError as error:
            raise ConfigError(f"version {row.version} cannot be read by this release any more:\n{error}") from error

    async def _change(self, history: History, row: Version, who: str, what: str, note: str, *, active: str) -> bool:
        revision = b"%d" % (int(history.revision or b"0") + 1)
        fields = {_REVISION: revision, _ACTIVE: active.encode(), row.version: orjson.dumps(asdict(row))}
        step = Step(self._clock(), who, what, row.version, history.active, active, note)
        return await self._board.change_versions(history.revision, fields, orjson.dumps(asdict(step)))


def _note(given: str) -> str:
    if len(given.encode()) > limits.VERSION_NOTE_BYTES_MAX:
        raise InvalidArgument(f"note: {len(given.encode())} bytes, at most {limits.VERSION_NOTE_BYTES_MAX} are allowed")
    return given


def _too_often() -> Unavailable:
    return Unavailable("others keep changing the versions; try again")


def described(history: History, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of the history for people and programs, newest first."""
    rows = [row for name, row in history.versions.items() if not names or name in names]
    return [asdict(row) | {"state": history.state_of(row)} for row in reversed(rows)]
