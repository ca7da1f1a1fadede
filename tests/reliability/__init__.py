"""Programs that put load and faults on a real service, and print figures: ``python -m tests.reliability.<name>``."""

import os

# As `winnow` does for itself: without it the engine alone, measured in these programs, is slower than the service.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
