"""A plugin that is loaded before all others: what they import then takes a second less in each process."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

# jsonschema imports it to check IRIs, which no test has.
cast("dict[str, Any]", sys.modules)["rfc3987_syntax"] = None

# Several workers share the cores, and threads of linear algebra that wait for each other use them up.
# Benchmarks run alone.
if not any("benchmarks" in argument for argument in sys.argv):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
