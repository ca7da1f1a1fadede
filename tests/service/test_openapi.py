from __future__ import annotations

import json

from service.errors import WinnowError
from service.problems import INTERNAL, PROBLEMS, problem_of
from tests.service.conftest import Running


def every_kind(base: type[WinnowError] = WinnowError) -> set[type[WinnowError]]:
    return {base}.union(*(every_kind(kind) for kind in base.__subclasses__()))


def test_every_error_that_has_no_kinds_of_its_own_is_in_the_table() -> None:
    leaves = {kind for kind in every_kind() if not kind.__subclasses__()}
    assert {kind.__name__ for kind in leaves - set(PROBLEMS)} == {"StartError"}


def test_an_error_without_a_row_tells_nothing() -> None:
    assert problem_of(WinnowError("a secret")) is INTERNAL


def test_each_answer_has_an_example(service: Running) -> None:
    document = service.client.get("/openapi.json").json()
    n_examples = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                assert answer["description"] or status == "200", path
                for content in answer.get("content", {}).values():
                    assert "example" in content or content["examples"], (path, status)
                    n_examples += len(content.get("examples", [1]))
    assert n_examples > 50
    assert "422" in document["paths"]["/separate"]["post"]["responses"]


def test_examples_are_of_the_table(service: Running) -> None:
    document = service.client.get("/openapi.json").json()
    found = {
        example["value"]["type"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for answer in operation["responses"].values()
        for content in answer.get("content", {}).values()
        for example in content.get("examples", {}).values()
        if "type" in example["value"]
    }
    assert found == {f"/problems/{row.kind}" for row in [*PROBLEMS.values(), INTERNAL]}
    assert "HTTPValidationError" not in json.dumps(document)


def test_references_resolve(service: Running) -> None:
    document = service.client.get("/openapi.json").json()
    assert set(document["components"]["schemas"]) == {"Problem", "Job"}


def test_info_and_models(service: Running) -> None:
    info = service.client.get("/v1/info").json()
    assert info["limits"]["max_audio_s"] == 3_600
    assert info["limits"]["min_sample_rate"] == 8_000
    assert info["provider"] == "FakeExecutionProvider"
    assert info["formats"]["flac"] == ["pcm16", "pcm24"]
    assert service.client.get("/v1/models").json() == {"models": [{"name": "fake"}]}


def test_documentation_page(service: Running) -> None:
    assert service.client.get("/docs").status_code == 200
