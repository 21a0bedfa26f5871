"""What every repository does, each in the same words."""

import asyncio

import pytest

from backend.model import Job, Outcome, Project, State
from backend.repository import ProjectGone, Repository
from conftest import Reopen

pytestmark = pytest.mark.anyio


async def test_a_project_and_its_paths_are_kept(reopen: Reopen) -> None:
    repository = await reopen()
    assert await repository.create("42")
    assert not await repository.create("42")
    await repository.track("42", ["projects/42/b", "projects/42/a"])
    await repository.track("42", ["projects/42/a", "proj_42_ä"])
    await repository.create("421")
    await repository.track("421", ["projects/421/a"])
    reopened = await reopen()
    assert await reopened.paths("42") == ["proj_42_ä", "projects/42/a", "projects/42/b"]
    assert await reopened.find("42") == Project("42", State.ACTIVE, 3, 0, None)
    assert await reopened.find("7") is None


async def test_a_deletion_and_its_job_are_one_commit(reopen: Reopen) -> None:
    repository = await reopen()
    await repository.create("42")
    await repository.track("42", ["projects/42/a"])
    assert await repository.claim(9.0, 19.0) is None
    assert await repository.delete("42", "job-1", 10.0) == Project("42", State.DELETING, 1, 0, None)
    # Asking again changes nothing, whoever asks.
    assert await repository.delete("42", "job-2", 10.0) == Project("42", State.DELETING, 1, 0, None)
    assert await repository.delete("7", "job-3", 10.0) is None
    reopened = await reopen()
    assert await reopened.claim(9.0, 19.0) is None
    assert await reopened.claim(10.0, 20.0) == Job("job-1", "42", None, 1)
    assert await reopened.claim(19.0, 29.0) is None
    assert await reopened.claim(20.0, 30.0) == Job("job-1", "42", None, 2)


async def test_a_project_that_is_going_takes_no_files(repository: Repository) -> None:
    with pytest.raises(ProjectGone):
        await repository.track("42", ["projects/42/a"])
    await repository.create("42")
    await repository.delete("42", "job", 0.0)
    with pytest.raises(ProjectGone):
        await repository.track("42", ["projects/42/a"])
    assert await repository.paths("42") == []


async def test_whoever_was_told_that_a_file_is_tracked_has_it_deleted(repository: Repository) -> None:
    """However the two requests fall together."""

    async def delete(project: str, pause: float) -> list[str]:
        await asyncio.sleep(pause)
        await repository.delete(project, f"job-{project}", 0.0)
        return await repository.paths(project)

    for turn in range(6):
        project = str(turn)
        paths = [f"projects/{turn}/{number:03}" for number in range(200)]
        await repository.create(project)
        tracked, read = await asyncio.gather(
            repository.track(project, paths), delete(project, turn / 100), return_exceptions=True
        )
        if tracked is None:
            assert read == paths
        else:
            assert isinstance(tracked, ProjectGone)
            assert await repository.paths(project) == []


async def test_a_job_goes_on_until_its_end_is_written_down(repository: Repository) -> None:
    await repository.create("42")
    await repository.track("42", ["projects/42/a"])
    await repository.delete("42", "job", 0.0)
    await repository.claim(0.0, 1.0)
    await repository.postpone("job", "queue_overloaded", 5.0)
    assert await repository.find("42") == Project("42", State.DELETING, 1, 0, "queue_overloaded")
    assert await repository.claim(4.0, 9.0) is None
    assert await repository.claim(5.0, 9.0) == Job("job", "42", None, 2)
    await repository.proceed("job", "del_1", 7.0)
    assert await repository.find("42") == Project("42", State.DELETING, 1, 0, None)
    assert await repository.claim(7.0, 9.0) == Job("job", "42", "del_1", 1)
    await repository.repeat("job", 3, "job-2", 60.0)
    assert await repository.claim(60.0, 61.0) == Job("job-2", "42", None, 1)
    await repository.finish("job-2", Outcome(4))
    assert await repository.find("42") == Project("42", State.DELETED, 0, 7, None)
    assert await repository.claim(99.0, 100.0) is None


async def test_a_failed_deletion_keeps_its_paths_and_can_be_asked_for_again(repository: Repository) -> None:
    await repository.create("42")
    await repository.track("42", ["projects/42/a"])
    await repository.delete("42", "job", 0.0)
    await repository.finish("job", Outcome(2, reason="1 object_locked"))
    assert await repository.find("42") == Project("42", State.FAILED, 1, 2, "1 object_locked")
    assert await repository.claim(9.0, 10.0) is None
    assert await repository.delete("42", "job-2", 9.0) == Project("42", State.DELETING, 1, 2, None)
    assert await repository.claim(9.0, 10.0) == Job("job-2", "42", None, 1)


async def test_who_comes_too_late_changes_nothing(repository: Repository) -> None:
    await repository.create("42")
    await repository.delete("42", "job", 0.0)
    await repository.finish("job", Outcome(1))
    ended = await repository.find("42")
    await repository.finish("job", Outcome(1, reason="no"))
    await repository.proceed("job", "del_1", 0.0)
    await repository.postpone("job", "late", 0.0)
    await repository.repeat("job", 1, "job-2", 0.0)
    assert await repository.find("42") == ended == Project("42", State.DELETED, 0, 1, None)
    assert await repository.claim(9.0, 10.0) is None
    assert await repository.delete("42", "job-3", 0.0) == ended


async def test_two_processes_do_not_take_the_same_job(reopen: Reopen) -> None:
    both = [await reopen(), await reopen()]
    for project in map(str, range(10)):
        await both[0].create(project)
        await both[0].delete(project, f"job-{project}", 0.0)
    claimed = await asyncio.gather(*(both[turn % 2].claim(0.0, 9.0) for turn in range(20)))
    jobs = [job.id for job in claimed if job is not None]
    assert sorted(jobs) == [f"job-{project}" for project in range(10)]
