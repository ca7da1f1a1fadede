from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.captions import phrases
from training.measure_captions import (
    BENCHMARK,
    Captioned,
    dropped,
    exact,
    hits,
    main,
    plain_split,
    read_benchmark,
    score,
    soft,
)


def test_the_benchmark_names_no_phrase_twice() -> None:
    rows = read_benchmark()
    named = [phrase.casefold() for row in rows for phrase in row.phrases]
    assert len(rows) == 60
    assert len(set(named)) == len(named)
    assert len(read_benchmark(split="dev")) == len(read_benchmark(split="test")) == 30
    assert all(set(json.loads(line)) == {"split", "caption", "phrases"} for line in BENCHMARK.read_text().splitlines())


def test_precision_and_recall_against_counts_by_hand() -> None:
    rows = [Captioned("x", ("a dog barks", "rain")), Captioned("y", ("wind",))]
    found = {"x": ("dog barks",), "y": ("wind", "bees", "Wind")}
    precision, recall = score(rows, lambda caption: found[caption], exact)
    assert precision.value == pytest.approx(2 / 4)
    assert recall.value == pytest.approx(2 / 3)
    assert precision.low <= precision.value <= precision.high


def test_a_true_phrase_is_found_once() -> None:
    assert hits(["rain", "rain"], ["the rain"], exact) == 1
    assert hits(["rain"], ["rain", "a rain"], exact) == 1


def test_soft_matching_asks_for_four_words_of_five() -> None:
    assert soft("a dog barking loud", "dog barking")  # F1 of 4/5
    assert not soft("dog", "dog barking")  # 2/3
    assert not soft("the", "a")


def test_no_caption_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        score([], phrases, exact)


def test_the_plain_splitter_has_the_faults_that_rules_mend() -> None:
    caption = "food and oil sizzling"
    assert plain_split(caption) == ("food", "oil sizzling")
    rows = read_benchmark(split="dev")
    assert score(rows, phrases, soft)[0].value > score(rows, plain_split, soft)[0].value + 0.1


def test_a_threshold_is_judged_by_what_it_drops() -> None:
    judged = [(("rain", "wind", "a tuba"), [0.5, 0.1, 0.0], "a tuba"), (("bees", "a gong"), [0.2, 0.3], "a gong")]
    lines = dropped(judged, [-1.0, 0.25])
    assert lines[2:] == ["| -1.00 | 0% | 0% |", "| 0.25 | 50% | 67% |"]


def test_the_command_prints_each_set_by_each_splitter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"id": "1", "seconds": 1.0, "caption": "rain while wind", "sources": []}
    source = {"path": "x", "start": 0.0, "at": 0.0, "level_db": 0.0, "label": "rain", "prompt": "rain"}
    for name in ("train-2", "train-3"):
        row = line | {"sources": [source, source | {"prompt": "wind"}]}
        (tmp_path / f"mixtures-{name}.jsonl").write_text(json.dumps(row) + "\n")
    main(["--sounds", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("| rules |") == printed.count("| plain |") == 4
    assert "| train-2 (1) | rules | 1.000 [1.000, 1.000] | 1.000" in printed
