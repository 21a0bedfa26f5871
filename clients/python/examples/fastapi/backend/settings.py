"""The settings: from the environment, or from the file `.env`. `.env.example` has them all."""

from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .model import TEMPLATES


class Settings(BaseSettings):
    """See `.env.example`."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    executor: Literal["worker", "s3", "wrangler"] = "worker"
    project_templates: list[str] = list(TEMPLATES)

    database: Path = Path("backend.db")
    mongo_url: SecretStr | None = None

    r2_deletion_url: str = ""
    r2_deletion_token: SecretStr = SecretStr("")
    notice_secret: SecretStr | None = None
    poll_seconds: float | None = None
    lease_seconds: float = 30.0

    r2_bucket: str = ""
    r2_endpoint: str = ""
    r2_access_key_id: str = ""
    r2_secret_access_key: SecretStr = SecretStr("")

    wrangler: str = "npx wrangler"
    wrangler_arguments: str = "--remote"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        needed = {
            "worker": ("r2_deletion_url", "r2_deletion_token"),
            "s3": ("r2_bucket", "r2_endpoint", "r2_access_key_id", "r2_secret_access_key"),
            "wrangler": ("r2_bucket",),
        }
        missing = [name.upper() for name in needed[self.executor] if not _text(getattr(self, name))]
        if missing:
            raise ValueError(f"EXECUTOR={self.executor} needs {' and '.join(missing)}")
        return self

    @property
    def poll(self) -> float:
        """Where the end of a deletion is told, looking is for the notice that is lost."""
        if self.poll_seconds is not None:
            return self.poll_seconds
        return 2.0 if self.notice_secret is None else 300.0


def _text(value: str | SecretStr) -> str:
    return value if isinstance(value, str) else value.get_secret_value()
