"""
Folders that need not be there yet.
"""

from __future__ import annotations

import os
from pathlib import Path


def nearest_existing(folder: Path) -> Path:
    """
    The folder, or the nearest one above it that is there.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def can_write(folder: Path) -> bool:
    """
    Whether this user may make files in a folder that is there.
    """
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
