"""Before anything imports numpy or ONNX Runtime: what the command line sets too."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
