"""What the OpenAPI document promises, against what the service does: requests made from the document by schemathesis.

``python -m tests.reliability.contract`` sends 2,000 (extra ``reliability``). Half of them are valid by the document and
must be taken, half break it and must be refused; every answer's status, type, headers and body must be in the document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.service.fake_server import fake_server
from tests.service.sounds import encode, noise

# Prompts are sent once for each item of the array; a sound is one that the service reads.
SOUNDS = [encode(noise(n_samples, n_channels), 16_000) for n_samples, n_channels in ((1, 1), (800, 1), (4_000, 2))]


@dataclass
class Result:
    """What came of it: requests by status, and the failures, each once."""

    n_cases: int
    statuses: dict[str, int]
    failures: list[str]


def run(url: str, n_cases: int, seed: int = 0) -> Result:
    """Send about ``n_cases`` requests to the service at ``url``, spread over the operations of its document."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st
    from schemathesis import GenerationMode
    from schemathesis.core.failures import Failure, FailureGroup
    from schemathesis.generation.value import Binary  # type: ignore[import-not-found,unused-ignore]

    schemathesis.openapi.format("binary", st.sampled_from(SOUNDS).map(Binary))
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    work = [operation for operation in operations if operation.method.upper() == "POST"]
    statuses: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for operation in operations:
        # Most of what can go wrong is in the bodies.
        share = 0.7 / max(len(work), 1) if operation in work else 0.3 / max(len(operations) - len(work), 1)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seeded(seed)
            @settings(
                max_examples=max(round(n_cases * share / 2), 2),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                response = case.call()
                statuses[f"{case.operation.label} {response.status_code}"] += 1
                try:
                    case.validate_response(response)
                except (Failure, FailureGroup) as failure:
                    inner = getattr(failure, "exceptions", [failure])
                    for each in inner:
                        if _of_types_alone(each) or _of_two_fields(each, response):
                            continue
                        detail = _detail(response)
                        failures[f"{case.operation.label}: {type(each).__name__}: {str(each)[:400]} {detail}"] += 1

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    check()
                except Exception as error:
                    if "Unsatisfiable" not in type(error).__name__:  # nothing breaks a document that asks for nothing
                        raise
    return Result(sum(statuses.values()), dict(sorted(statuses.items())), list(failures))


def _of_types_alone(failure: Exception) -> bool:
    """Whether a request was taken that breaks the document only in that a text of the form stands for a number, say: on
    the wire both are the same characters."""
    broken = [line for line in str(failure).splitlines() if "violates " in line]
    return (
        type(failure).__name__ == "AcceptedNegativeData" and bool(broken) and all("`type`" in line for line in broken)
    )


def _of_two_fields(failure: Exception, response: Any) -> bool:
    """Whether a subtype was refused that the format does not carry: the document says so in words, for a schema that
    says it keeps schemathesis from making requests with a sound in them."""
    return type(failure).__name__ == "RejectedPositiveData" and '"field":"subtype"' in response.text


def _detail(response: Any) -> str:
    problem = response.json() if response.headers.get("content-type") == ["application/problem+json"] else {}
    return f"({response.status_code} {problem.get('field')}: {problem.get('detail')})"


def main() -> None:
    """Print the figures; fails when the service does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "temporary"
        folder.mkdir()
        with fake_server(folder) as server:
            result = run(server.url, options.cases, options.seed)
    print(json.dumps(asdict(result), indent=2))
    raise SystemExit(bool(result.failures))


if __name__ == "__main__":
    main()
