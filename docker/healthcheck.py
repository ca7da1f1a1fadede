"""Is the service ready? Exit status 0 if so. Python's own library only: the image has no curl."""

import os
import sys
import urllib.error
import urllib.request

port = os.environ.get("WINNOW_PORT", "8000")
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
        ready = answer.status == 200
except (urllib.error.URLError, OSError) as error:
    print(error, file=sys.stderr)
    ready = False
sys.exit(0 if ready else 1)
