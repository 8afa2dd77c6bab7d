"""
What rich lays out, as text.
"""

from __future__ import annotations

from rich.console import Console, RenderableType

PLAIN_WIDTH = 100


def rendered(what: RenderableType) -> str:
    """
    As text for stdout: of the terminal's width, or of a fixed one elsewhere.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    with console.capture() as capture:
        console.print(what)
    return capture.get()
