"""What the OpenAPI document promises, against what the service does: requests made from the document by schemathesis.

``python -m tests.reliability.contract`` sends 2,000 (extra ``reliability``). Half of them are valid by the document and
must be taken, half break it and must be refused; every answer's status, type, headers and body must be in the document.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.service.fake_server import PATIENCE_S, fake_server
from tests.service.sounds import encode, noise

# Prompts are sent once for each item of the array; a sound is one that the service reads.
SOUNDS = [encode(noise(n_samples, n_channels), 16_000) for n_samples, n_channels in ((1, 1), (800, 1), (4_000, 2))]


EXAMPLE = "(the file's bytes)"


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
                if isinstance(case.body, dict) and case.body.get("audio") == EXAMPLE:
                    case.body["audio"] = Binary(SOUNDS[0])  # the example in the document stands for a file
                response = case.call()
                statuses[f"{case.operation.label} {response.status_code}"] += 1
                try:
                    case.validate_response(response)
                except (Failure, FailureGroup) as failure:
                    inner = getattr(failure, "exceptions", [failure])
                    for each in inner:
                        if any(excuses(each, response) for excuses in EXCUSES):
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


def run_until(url: str, n_cases: int) -> Result:
    """Send at least so many: hypothesis leaves out what it has sent already."""
    result = Result(0, {}, [])
    seed = 0
    while result.n_cases < n_cases:
        more = run(url, n_cases - result.n_cases, seed)
        statuses = Counter(result.statuses) + Counter(more.statuses)
        result = Result(
            result.n_cases + more.n_cases, dict(sorted(statuses.items())), sorted({*result.failures, *more.failures})
        )
        seed += 1
    return result


def walk(url: str) -> list[str]:
    """Each operation by hand, each field of its form with values that its schema takes and some that it does not.

    Returns a line for each request, which ends in ``as promised`` when the answer is in the document.
    """
    lines = []
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        document = client.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                for what, request, taken in _requests(operation):
                    answer = client.request(method, re.sub(r"\{[^}]+\}", "unknown", path), **request)
                    promised = operation["responses"].get(str(answer.status_code), {}).get("content", {})
                    kept = answer.headers.get("content-type", "").partition(";")[0] in promised
                    kept = kept and taken in (None, answer.status_code < 300)
                    lines.append(f"{method} {path} {what}: {answer.status_code} {'as promised' if kept else 'BROKEN'}")
    return lines


def _requests(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool | None]]:
    """Requests of an operation: what is special, how it is sent, and whether it must be taken (None: either)."""
    forms = operation.get("requestBody", {}).get("content", {})
    schema = forms.get("multipart/form-data", {}).get("schema")
    if schema is None:
        yield "plain", {}, None
        return
    audio = {"audio": ("a.wav", SOUNDS[0])}
    right: dict[str, Any] = {name: "dog" for name in schema["required"] if name != "audio"}
    yield "right", {"files": audio, "data": right}, True
    yield "no form", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, False
    yield "no audio", {"files": {"other": b"x"}, "data": right}, False
    yield "no sound", {"files": {"audio": b"x"}, "data": right}, False
    yield "unknown field", {"files": audio, "data": {**right, "unknown": "1"}}, False
    for name, field in schema["properties"].items():
        item = field.get("items", field)
        for value in item.get("enum", []):
            yield f"{name}={value}", {"files": audio, "data": {**right, name: value}}, True
        for value in ("true", "false") if item.get("type") == "boolean" else ():
            data = {**right, "prompt": ["dog", "rain"], name: value}  # what it says, it says of several
            yield f"{name}={value}", {"files": audio, "data": data}, True
        if "enum" in item or item.get("type") in ("integer", "boolean"):
            yield f"{name} wrong", {"files": audio, "data": {**right, name: "neither"}}, False
        if "minimum" in item:
            yield f"{name} low", {"files": audio, "data": {**right, name: str(item["minimum"] - 1)}}, False
            yield f"{name} high", {"files": audio, "data": {**right, name: str(item["maximum"] + 1)}}, False
        if "pattern" in item:
            for wrong in ("", " ", "a\x07b", "a\u202eb", "a" * (item["maxLength"] + 1)):
                yield f"{name}={wrong[:5]!a}", {"files": audio, "data": {**right, name: wrong}}, False
            yield f"{name} longest", {"files": audio, "data": {**right, name: "é" * item["maxLength"]}}, True
        if "maxItems" in field and field["maxItems"] < 100:
            many = ["a"] * (field["maxItems"] + 1)
            yield f"{name} too often", {"files": audio, "data": {**right, name: many}}, False


def _of_types_alone(failure: Exception, response: Any) -> bool:
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


def _of_requests_before(failure: Exception, response: Any) -> bool:
    """Whether a key was refused that an earlier request had for another form: no schema can say that, and 422 is what
    the IETF's draft asks for, where schemathesis knows 409."""
    return type(failure).__name__ == "RejectedPositiveData" and "/problems/idempotency-mismatch" in response.text


EXCUSES = (_of_types_alone, _of_two_fields, _of_requests_before)


def _detail(response: Any) -> str:
    problem = response.json() if response.headers.get("content-type") == ["application/problem+json"] else {}
    return f"({response.status_code} {problem.get('field')}: {problem.get('detail')})"


def main() -> None:
    """Print the figures; fails when the service does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "temporary"
        folder.mkdir()
        with fake_server(folder) as server:
            result = run_until(server.url, options.cases)
    print(json.dumps(asdict(result), indent=2))
    raise SystemExit(bool(result.failures))


if __name__ == "__main__":
    main()
