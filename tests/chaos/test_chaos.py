"""Short versions of `make chaos`: a few kills and a few failing writes for each job."""

import random
from collections.abc import Iterator

import pytest
from chaos import jobs, run


@pytest.fixture(scope="module")
def world() -> Iterator[run.World]:
    with run.world() as made:
        yield made


@pytest.mark.parametrize("job", run.KILLED)
def test_a_killed_job_breaks_nothing_and_ends_as_an_unbroken_one(job: str, world: run.World) -> None:
    assert "2 kills" in run.kill(world, job, 2, random.Random(job))


@pytest.mark.parametrize("job", jobs.JOBS)
def test_a_failing_write_is_told_and_loses_nothing(job: str, world: run.World) -> None:
    _, _, writes, _ = world.unbroken(job, **run.SHORT.get(job, {}))
    assert writes > 5
    assert f" of {writes}, " in run.fail(world, job, max(1, writes // 3), random.Random(job))
