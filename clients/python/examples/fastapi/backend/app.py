"""The service: `uvicorn --factory backend.app:create_app`."""

import asyncio
import shlex
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

import boto3
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request, Response
from pydantic import BaseModel, Field
from r2_deletion_queue import AsyncClient, Retry, webhook

from .executors import Executor
from .executors.s3 import S3Executor
from .executors.worker import JOB_LABEL, WorkerExecutor, progress_of
from .executors.wrangler import WranglerExecutor
from .model import Project, State, places
from .mongo import MongoRepository
from .relay import Relay
from .repository import ProjectGone, Repository
from .settings import Settings
from .sqlite import SqliteRepository

PATH_BYTES_MAX = 1_024

router = APIRouter()

ProjectId = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,128}$")]


class Paths(BaseModel):
    """Where files will be uploaded."""

    paths: list[str] = Field(min_length=1, max_length=1_000)


class Services:
    """What a request works with."""

    def __init__(self, settings: Settings, repository: Repository, relay: Relay) -> None:
        self.settings = settings
        self.repository = repository
        self.relay = relay


def create_app(settings: Settings | None = None, *, executor: Executor | None = None) -> FastAPI:
    """Makes the service.

    Args:
        settings: By default those of the environment.
        executor: In place of the one that the settings choose, for a test.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            repository = await _repository(settings)
            stack.push_async_callback(repository.close)
            deletes = executor or await _executor(settings, stack)
            relay = Relay(repository, deletes, lease=settings.lease_seconds, poll=settings.poll)
            app.state.services = Services(settings, repository, relay)
            running = asyncio.create_task(relay.run())
            yield
            # What it was doing stays in the outbox.
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    app = FastAPI(title="Projects", lifespan=lifespan)
    app.include_router(router)
    return app


async def _repository(settings: Settings) -> Repository:
    if settings.mongo_url is not None:
        return await MongoRepository.open(settings.mongo_url.get_secret_value())
    return await SqliteRepository.open(settings.database)


async def _executor(settings: Settings, stack: AsyncExitStack) -> Executor:
    if settings.executor == "s3":
        s3 = boto3.client(
            "s3",
            endpoint_url=settings.r2_endpoint,
            aws_access_key_id=settings.r2_access_key_id,
            aws_secret_access_key=settings.r2_secret_access_key.get_secret_value(),
            region_name="auto",
        )
        return S3Executor(s3, settings.r2_bucket, settings.project_templates)
    if settings.executor == "wrangler":
        command, arguments = shlex.split(settings.wrangler), shlex.split(settings.wrangler_arguments)
        return WranglerExecutor(command, settings.r2_bucket, arguments)
    token = settings.r2_deletion_token.get_secret_value()
    # Not for long: what fails is in the outbox, and tried again by the relay.
    client = AsyncClient(settings.r2_deletion_url, token, retry=Retry(total=10))
    return WorkerExecutor(await stack.enter_async_context(client))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


With = Annotated[Services, Depends(_services)]


@router.put("/projects/{project}", status_code=201)
async def create_project(project: ProjectId, services: With, response: Response) -> Project:
    """Creates a project. The id of one that was deleted is not used again."""
    if not await services.repository.create(project):
        response.status_code = 200
    return await _found(services, project)


@router.get("/projects/{project}")
async def read_project(project: ProjectId, services: With) -> Project:
    """A project; of one that was deleted, how far that is."""
    return await _found(services, project)


@router.post("/projects/{project}/files", status_code=201)
async def track_files(project: ProjectId, body: Paths, services: With) -> Paths:
    """Writes down where files will be. Do it before they are uploaded, so that there is none that nobody knows of."""
    own = places(services.settings.project_templates, project)
    for path in body.paths:
        # What is not its own would be deleted with it.
        if not path.startswith(own) or len(path.encode()) > PATH_BYTES_MAX:
            raise HTTPException(422, "A path begins as the keys of its project do, and has at most 1,024 bytes.")
    try:
        await services.repository.track(project, body.paths)
    except ProjectGone:
        raise HTTPException(409, "There is no such project, or it has been deleted.") from None
    return body


@router.delete("/projects/{project}", status_code=202)
async def delete_project(project: ProjectId, services: With, response: Response) -> Project:
    """Deletes a project. It is gone at once, and 202 means that its files will be.

    Nothing is sent from here: what is written is one commit, and the relay does the rest.
    """
    deleted = await services.repository.delete(project, uuid.uuid4().hex, services.relay.now())
    if deleted is None:
        raise HTTPException(404, "There is no such project.")
    services.relay.wake()
    response.headers["Location"] = f"/projects/{project}"
    if deleted.state == State.DELETED:
        response.status_code = 200
    return deleted


@router.post("/webhooks/r2-deletions", status_code=204)
async def receive_notice(request: Request, services: With) -> None:
    """Is told of the end of a deletion; the consumer's NOTICE_URL names this."""
    secret = services.settings.notice_secret
    if secret is None:
        raise HTTPException(404)
    try:
        notice = webhook.verify(request.headers, await request.body(), secret.get_secret_value())
    except webhook.VerificationFailed:
        raise HTTPException(401) from None
    job = None if notice.deletion is None else notice.deletion.labels.get(JOB_LABEL)
    if notice.deletion is not None and job is not None:
        await services.relay.settle(job, progress_of(notice.deletion))


async def _found(services: Services, project: str) -> Project:
    found = await services.repository.find(project)
    if found is None:
        raise HTTPException(404, "There is no such project.")
    return found
