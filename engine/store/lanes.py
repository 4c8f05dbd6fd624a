"""What a Connection is to one server, for a cluster: a lane sends each command to the node that serves its key.

    commands ──► by slot, by node ──► one pipeline a node, all at once ──► replies in the order of the commands

One step of a call (a command, or several that take place together) touches one slot. The refusals of a cluster say that
nothing was done, so these steps, and only these, are sent again within the time of the call:

    MOVED       to the new master of the slot
    ASK         to the node that the slot is moving to, this once
    TRYAGAIN    the keys of the step are on both sides of a move: a read goes on key by key, a script waits a moment
    NOSCRIPT    after the scripts

A node that fails takes its own steps along and no others: their replies are StoreUnavailable.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.store import scripts
from engine.store.base import StoreError, StoreUnavailable
from engine.store.cluster import Cluster, Node, slot_of
from engine.store.wire import Command, KeysApart, Redirected, Reply, ScriptMissing

APART_PAUSES_MS: Final = (0, 1, 2, 4, 8)
"""Waits before each sending of what was refused with TRYAGAIN; what is refused as often as this stays refused.

A slot that moves key by key may refuse a script for minutes, and the rest of the batch waits with it.
"""
_MAY_REPEAT: Final = (Redirected, KeysApart, ScriptMissing)
"""Refusals that say that nothing was done."""


@dataclass(slots=True, eq=False)
class _Step:
    """Commands for one slot that one node answers together."""

    slot: int
    commands: tuple[Command, ...]
    reply: Reply = None
    """Of the last command; the first error if there is one."""
    asked: Node | None = None
    """Where ASK sent it."""


class Lane:
    """One way to all nodes of a cluster, in order for each node; any number of tasks may use it at once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def pipeline(self, commands: Sequence[Command], timeout_s: float, *, look: bool = False) -> list[Reply]:
        """Replies of the commands, in order; an error is a StoreError among them. Each touches keys of one slot.

        After a StoreUnavailable it is not known whether that command took place. `look` is for single servers.
        """
        steps = [_Step(slot_of(_key(command)), (command,)) for command in commands]
        await self._run(steps, timeout_s)
        return [step.reply for step in steps]

    async def mget(self, keys: Sequence[bytes], timeout_s: float) -> list[Reply]:
        """Values of keys of any slots; a StoreError in the place of each that could not be read."""
        places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(slot_of(key), []).append(place)
        steps = [_Step(slot, ((b"MGET", *(keys[place] for place in at)),)) for slot, at in places.items()]
        await self._run(steps, timeout_s)
        values: list[Reply] = [None] * len(keys)
        for step, at in zip(steps, places.values(), strict=True):
            for place, value in zip(at, _each(step.reply, len(at)), strict=True):
                values[place] = value
        return values

    async def atomic(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """Replies of commands of any slots; those of one slot all take place, or none of them."""
        places: dict[int, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(slot_of(_key(command)), []).append(place)
        steps = [_Step(slot, _together([commands[place] for place in at])) for slot, at in places.items()]
        await self._run(steps, timeout_s)
        replies: list[Reply] = [None] * len(commands)
        for step, at in zip(steps, places.values(), strict=True):
            for place, reply in zip(at, _each(step.reply, len(at)) if len(at) > 1 else [step.reply], strict=True):
                replies[place] = reply
        return replies

    def abandon(self) -> None:
        """Close the sockets now; replies under way are lost. The next call opens others."""
        self._cluster.release(self)

    async def close(self) -> None:
        """Close the sockets."""
        self.abandon()

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _run(self, steps: Sequence[_Step], timeout_s: float) -> None:
        """Give each step its reply."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        for pause_ms in APART_PAUSES_MS:
            if any(isinstance(step.reply, KeysApart) for step in steps):
                await asyncio.sleep(pause_ms / 1e3)
            by_node = self._by_node(steps)
            left_s = max(0.0, end_s - loop.time())
            if len(by_node) == 1:
                [(node, some)] = by_node.items()
                await self._send(node, some, left_s)
            elif by_node:
                await asyncio.gather(*(self._send(node, some, left_s) for node, some in by_node.items()))
            sent = [(node, step) for node, some in by_node.items() for step in some]
            refused = [(node, step) for node, step in sent if isinstance(step.reply, _MAY_REPEAT)]
            if not refused:
                return
            for node, step in refused:
                step.asked = self._redirected(node, step)
                if isinstance(step.reply, KeysApart) and step.commands[0][0] == b"MGET" and len(step.commands[0]) > 2:
                    await self._read_apart(step, end_s - loop.time())
            steps = [step for _, step in refused if isinstance(step.reply, _MAY_REPEAT)]
            if not steps or loop.time() >= end_s:
                return

    def _by_node(self, steps: Iterable[_Step]) -> dict[Node, list[_Step]]:
        by_node: dict[Node, list[_Step]] = {}
        for step in steps:
            try:
                node = step.asked or self._cluster.owner(step.slot)
            except StoreUnavailable as error:
                step.reply = error
            else:
                by_node.setdefault(node, []).append(step)
        return by_node

    async def _send(self, node: Node, steps: Sequence[_Step], timeout_s: float) -> None:
        commands: list[Command] = []
        if any(isinstance(step.reply, ScriptMissing) for step in steps):
            commands += scripts.LOAD
        begins = []
        for step in steps:
            if step.asked is not None:
                commands.append((b"ASKING",))
            begins.append(len(commands))
            commands += step.commands
        try:
            replies = await node.connection(self).pipeline(commands, timeout_s)
        except StoreError as error:
            for step in steps:
                step.reply = error
            if isinstance(error, StoreUnavailable):
                self._cluster.suspect(node)
            return
        for step, begin in zip(steps, begins, strict=True):
            if len(step.commands) == 1:
                step.reply = replies[begin]
            else:
                own = replies[begin : begin + len(step.commands)]
                step.reply = next((reply for reply in own if isinstance(reply, StoreError)), own[-1])

    def _redirected(self, node: Node, step: _Step) -> Node | None:
        """Where the step has to go instead of to the owner of its slot."""
        if isinstance(step.reply, Redirected):
            target = self._cluster.redirected(node, step.reply)
            return target if step.reply.ask else None
        # NOSCRIPT is of the node that was asked; after a TRYAGAIN its owner knows where things stand.
        return step.asked if isinstance(step.reply, ScriptMissing) else None

    async def _read_apart(self, step: _Step, timeout_s: float) -> None:
        """Read key by key what is partly on this side of a move and partly on the other."""
        singles = [_Step(step.slot, ((b"MGET", key),)) for key in step.commands[0][1:]]
        await self._run(singles, max(0.0, timeout_s))
        step.reply = [_each(single.reply, 1)[0] for single in singles]


def _key(command: Command) -> bytes:
    """A key of a command: all keys of a command are of one slot."""
    name = command[0]
    if name == b"EVALSHA":
        return command[3]
    # … STREAMS key start: one stream a command.
    return command[-2] if name == b"XREAD" else command[1]


def _together(commands: list[Command]) -> tuple[Command, ...]:
    return tuple(commands) if len(commands) == 1 else ((b"MULTI",), *commands, (b"EXEC",))


def _each(reply: Reply, count: int) -> list[Reply]:
    """The values of a reply, or its error once for each."""
    values: list[Reply] = [reply] * count if isinstance(reply, StoreError) else reply
    return values
