"""Texts of somebody else, on a terminal."""

from rich.text import Text


def plain(text: str) -> Text:
    """As it is: no markup of rich, no command to the terminal."""
    return Text("".join(character if character.isprintable() else "�" for character in text))
