"""
Stores for the faults: those of the integration tests.
"""

from __future__ import annotations

from tests.integration.conftest import empty_store

__all__ = ["empty_store"]  # a fixture
