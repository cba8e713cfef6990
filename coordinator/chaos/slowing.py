"""How slow a slowed worker is if nobody says. Commands show it without loading anything else."""

from __future__ import annotations

SLOW_SECONDS = 0.05
"""Before each action."""

SLOW_STEPS = 10
