"""What the backend knows."""

from dataclasses import dataclass, field
from enum import StrEnum

TEMPLATES = (
    "projects/{id}/",
    "proj_{id}/",
    "proj_{id}_",
    "proj_proj_{id}/",
    "proj_proj_{id}_",
)
"""How the keys of a project begin, today and in the past: the producer's setting PROJECT_TEMPLATES says the same."""


class State(StrEnum):
    """Where a project is."""

    ACTIVE = "active"
    DELETING = "deleting"
    """It is gone for everybody; its files are going."""
    DELETED = "deleted"
    FAILED = "failed"
    """Files are left that could not be deleted. Ask for its deletion again when the reason is gone."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project."""

    id: str
    state: State
    files: int
    """How many paths are tracked."""
    deleted: int
    """How many files its deletion has deleted so far."""
    reason: str | None
    """Why its deletion has failed, or is late."""


@dataclass(frozen=True, slots=True)
class Job:
    """An entry of the outbox: a project whose files have to go."""

    id: str
    """Of this entry alone: the same however often it is tried."""
    project: str
    reference: str | None
    """By what the executor knows it, once it has accepted it."""
    tries: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job has ended."""

    deleted: int
    reason: str | None = None
    """Why files are left for good."""
    is_whole: bool = True
    """Whether nothing was uploaded while it went on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    reference: str | None = field(default=None)
    """None when the executor knows nothing of it: it is to be started."""
    outcome: Outcome | None = field(default=None)
    """None while it goes on."""


def places(templates: list[str], project: str) -> tuple[str, ...]:
    """How the keys of a project begin."""
    return tuple(template.replace("{id}", project) for template in templates)
