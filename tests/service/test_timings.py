from __future__ import annotations

import threading

import pytest

from service.timings import Stage, Timings


def test_pieces_of_a_stage_add_up_from_every_thread() -> None:
    timings = Timings()

    def work() -> None:
        for number in range(500):
            timings.add("infer", number, number + 2.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert timings.spans == {"infer": Stage(0, 501.0, 4_000.0, 2_000)}
    assert timings.stages == {"infer": 4_000_000.0}


def test_a_block_is_accounted_for_when_it_fails_too() -> None:
    timings = Timings()
    with pytest.raises(KeyError), timings.measure("decode"):
        raise KeyError
    with timings.measure("embed"):
        pass
    assert list(timings.stages) == ["decode", "embed"]
    decode, embed = timings.spans.values()
    assert decode.began_s <= decode.ended_s <= embed.began_s and decode.pieces == 1


def test_the_header_names_the_stages_in_their_order() -> None:
    timings = Timings()
    timings.add("upload", 1.0, 1.5)
    timings.add("queue", 2.0, 2.0)
    timings.add("upload", 3.0, 3.25)
    assert timings.header() == "upload;dur=750.0, queue;dur=0.0"
