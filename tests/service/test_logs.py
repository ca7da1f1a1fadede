from __future__ import annotations

import contextlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.envelope import Record
from service.keys import digest_of
from service.logs import JsonLines, RequestLog, TextLines, configure_logging
from service.settings import Settings
from service.timings import Timings
from tests.service.conftest import PATIENCE_S, Running
from tests.service.sounds import encode, noise

SECRET = "wk_a-key-that-nobody-may-read"
PROMPT = "the neighbour's quarrel"


@contextlib.contextmanager
def logged(form: logging.Formatter) -> Iterator[io.StringIO]:
    """Everything that is logged, at every level, as the service would write it."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(form)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield out
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def requests(out: io.StringIO, n: int) -> list[dict[str, object]]:
    """The first ``n`` lines of requests, each of which is written after its answer has gone."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        lines = [json.loads(line) for line in out.getvalue().splitlines() if line.endswith("}")]
        found = [line for line in lines if line["message"] == "request"]
        if len(found) >= n:
            return found
        assert time.monotonic() < deadline, out.getvalue()
        time.sleep(0.02)


def test_a_request_is_one_line_with_its_times_and_its_audio(start: Callable[..., Running]) -> None:
    running = start()
    with logged(JsonLines()) as out:
        answer = running.separate(encode(noise(8_000), 16_000), [PROMPT, "rain", PROMPT + "!"], output="both")
        (line,) = requests(out, 1)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/separate", 200)
    assert line["audio_in_s"] == 0.5 and line["audio_out_s"] == 2.0
    assert line["cache"] == ["miss", "miss", "miss"]
    assert line["bytes_out"] == len(answer.content) and line["bytes_in"] > 16_000
    stages = line["stages_ms"]
    assert isinstance(stages, dict) and {"upload", "queue", "decode", "embed"} <= stages.keys()
    told = dict(stage.split(";dur=") for stage in answer.headers["server-timing"].split(", "))
    assert {name: float(value) for name, value in told.items()} == {name: stages[name] for name in told}
    prompts = line["prompts"]
    assert isinstance(prompts, list) and len(set(prompts)) == 3 and all(len(item) == 8 for item in prompts)


@pytest.mark.parametrize("form", [JsonLines(), TextLines()])
@pytest.mark.parametrize("fault", [None, RuntimeError(f"no such token: {PROMPT!r}"), ValueError(PROMPT)])
def test_no_key_and_no_prompt_shows_up(
    form: logging.Formatter, fault: Exception | None, start: Callable[..., Running], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice {digest_of(SECRET)}\n")
    running = start(api_keys_file=keys)
    running.network.fail = fault
    with logged(form) as out:
        for headers in ({"X-API-Key": SECRET}, {"Authorization": f"Bearer {SECRET}"}, {"X-API-Key": SECRET + "x"}):
            running.client.post(
                "/separate",
                files={"audio": (f"{PROMPT}.wav", encode(noise(2_000), 16_000))},
                data={"prompt": PROMPT},
                headers=headers,
            )
        running.client.post("/separate", data={"prompt": PROMPT}, headers={"X-API-Key": SECRET})
        running.client.get(f"/v1/info?key={SECRET}&prompt={PROMPT}")
        running.client.get(f"/{PROMPT}")
        deadline = time.monotonic() + PATIENCE_S
        while out.getvalue().count("other") < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        text = out.getvalue()
    ours = "\n".join(line for line in text.splitlines() if "httpx" not in line and "httpcore" not in line)
    assert "alice" in ours and "/separate" in ours
    assert SECRET not in ours and digest_of(SECRET) not in ours
    assert PROMPT not in ours and "neighbour" not in ours
    if fault is not None:
        assert type(fault).__name__ in ours, "what failed is still told"


def test_prompts_are_written_out_where_that_is_wanted(start: Callable[..., Running]) -> None:
    running = start(log_prompts=True)
    with logged(JsonLines()) as out:
        running.separate(encode(noise(2_000), 16_000), PROMPT)
        (line,) = requests(out, 1)
    assert line["prompts"] == [PROMPT]


def record(**changes: object) -> Record:
    return Record(**{**RECORD, **changes})  # type: ignore[arg-type]


RECORD: dict[str, object] = {
    "request_id": "1",
    "method": "POST",
    "path": "/separate",
    "status": 200,
    "duration_ms": 1.0,
    "caller": None,
    "problem": None,
}


@given(st.text(), st.sampled_from([JsonLines(), TextLines()]))
def test_a_line_is_one_line_whatever_is_in_it(text: str, form: logging.Formatter) -> None:
    timings = Timings()
    timings.prompts = (text,)
    with logged(form) as out:
        RequestLog(with_prompts=True).write(record(timings=timings, method=text, caller=text), "/separate")
        logging.getLogger("winnow.test").warning("said %s", text)
    lines = out.getvalue().split("\n")
    assert len(lines) == 3 and lines[2] == ""
    assert not any(len(line.splitlines()) > 1 for line in lines)
    if isinstance(form, JsonLines):
        assert json.loads(lines[0])["prompts"] == [text]
        assert json.loads(lines[1])["message"] == f"said {text}"


def test_a_forged_field_is_inside_quotes() -> None:
    timings = Timings()
    timings.prompts = ('x" status=200 key=admin\n2026 info winnow.request request status=200',)
    with logged(TextLines()) as out:
        RequestLog(with_prompts=True).write(record(timings=timings, status=500), "/separate")
    assert out.getvalue().count("\n") == 1
    assert '\\"' in out.getvalue() and "\\n2026" in out.getvalue()


def test_the_hash_of_a_prompt_is_of_this_process_alone() -> None:
    first, second = RequestLog(), RequestLog()
    assert first.hashed(PROMPT) == first.hashed(PROMPT) != first.hashed(PROMPT + " ")
    assert first.hashed(PROMPT) != second.hashed(PROMPT)


def test_probes_that_went_well_are_quiet(start: Callable[..., Running]) -> None:
    running = start()
    with logged(JsonLines()) as out:
        running.client.get("/healthz")
        running.engine.ready = False
        running.client.get("/readyz")
        running.engine.ready = True
        lines = {str(line["route"]): line["level"] for line in requests(out, 2)}
    assert lines == {"/healthz": "debug", "/readyz": "info"}


@pytest.mark.parametrize(("form", "formatter"), [("json", JsonLines), ("text", TextLines)])
def test_the_setting_chooses_the_form(form: str, formatter: type, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    level = root.level
    try:
        configure_logging(Settings(log_format=form, log_level="warning"))
        assert [type(handler.formatter) for handler in root.handlers] == [formatter]
        assert root.level == logging.WARNING
    finally:
        root.setLevel(level)
