"""Short forms of the programs beside this file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import SHIPPED_BUNDLE
from tests.reliability import contract, leaks, redis_faults, slow_uploads, start
from tests.service.fake_server import FakeServer, fake_server


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "temporary"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


def test_nothing_is_left_of_many_requests(folder: Path) -> None:
    with fake_server(folder) as server:
        result = leaks.run(server, 100)
    assert result.open_files_after <= result.open_files_before and result.temporary_files_after == []
    assert result.slope_bytes_a_request < 20_000, result


def test_slow_uploads_keep_nobody_out(folder: Path) -> None:
    with fake_server(folder) as server:
        result = slow_uploads.run(server, n_slow=200, seconds=3)
    assert set(result.honest) == {200} and result.n_honest >= 1


@pytest.mark.parametrize("fault", redis_faults.FAULTS)
def test_redis_in_trouble_fails_no_request(tmp_path: Path, fault: str) -> None:
    """How long each takes is for the program to say, on a quiet machine; here it must be well below a stuck call's."""
    result = redis_faults.run(tmp_path, fault, 8, shipped=False, redis_pause_s=0.5)
    assert result.statuses == {200}
    assert max(result.at_first_s + result.then_s) < 5
    assert (result.recovered_s is None) == (fault == "absent")


@pytest.mark.skipif(not (SHIPPED_BUNDLE / "manifest.json").is_file(), reason="no bundle ships with this checkout")
def test_the_first_request_is_not_much_slower_than_the_tenth(folder: Path) -> None:
    """The bar is 1.3 on a quiet machine; here the others' tests run beside it."""
    assert start.run(folder, n_starts=2).first_to_tenth < 3


def test_the_service_keeps_what_its_document_promises(folder: Path) -> None:
    with fake_server(folder) as server:
        result = contract.run_until(server.url, 100)
    assert result.failures == [] and result.n_cases >= 100


def test_the_service_keeps_its_document_walked_by_hand(folder: Path) -> None:
    """Every operation, with each field right and wrong."""
    with fake_server(folder) as server:
        answers = contract.walk(server.url)
    assert [line for line in answers if not line.endswith("as promised")] == []
    assert len(answers) >= 40


@pytest.mark.slow
def test_two_thousand_requests_from_the_document(folder: Path) -> None:
    with fake_server(folder) as server:
        result = contract.run_until(server.url, 2_000)
    assert result.failures == []


@pytest.mark.slow
def test_five_hundred_requests_to_the_shipped_model_leave_nothing(folder: Path) -> None:
    server = FakeServer(folder, shipped=True)
    try:
        server.wait_until_ready()
        result = leaks.run(server, 500)
    finally:
        server.end()
    assert result.open_files_after <= result.open_files_before and result.temporary_files_after == []
    assert result.slope_bytes_a_request < 20_000, result
