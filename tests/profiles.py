"""How long Hypothesis looks. A loaded machine is slow, not wrong: no deadlines."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

slow_is_fine = [HealthCheck.too_slow]
settings.register_profile(
    "dev", max_examples=100, deadline=None, suppress_health_check=slow_is_fine
)
settings.register_profile(  # CI looks longer, and at the same examples each time
    "ci", max_examples=500, deadline=None, derandomize=True, suppress_health_check=slow_is_fine
)
settings.register_profile(  # by hand, for hours
    "soak", max_examples=20_000, deadline=None, suppress_health_check=slow_is_fine
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
