"""What whoever starts a server chooses."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from tfcorr.serving.versions import MODELS
from tfcorr.settings import InputError, Settings, nearest


class Limits(Settings):
    """What a request may ask at most. Beyond these it is answered by an error, and the server lives."""

    message_bytes: int = Field(4 * 2**20, ge=1024, le=2**30, description="of a request")
    rows: int = Field(256, ge=1, le=2**16, description="of a request")
    length: int = Field(
        2000, ge=1, le=2**20, description="ids in a row of history, exclude or candidates, or values of a feature"
    )
    k: int = Field(1000, ge=1, le=10**6)
    items: int = Field(
        2**16, ge=1, le=2**30, description="in an answer: a request's rows times its largest k, or its candidates"
    )
    requests: int = Field(128, ge=1, description="at once, over both protocols")
    together: int = Field(64, ge=1, description="rows that a model answers at once, of one request or several")
    connections: int = Field(512, ge=1, description="of REST; for one more the longest idle is closed")
    grpc_connections: int = Field(4096, ge=1, description="of gRPC; one more is closed at once")
    unread_bytes: int = Field(2**26, ge=1, description="of a protocol's answers that nobody has read yet")


class ServerSettings(Settings):
    """Of `tfcorr serve`."""

    host: str = Field("127.0.0.1", description="the address to listen at")
    port: int = Field(8500, ge=0, lt=2**16, description="of gRPC; 0 takes a free one")
    rest_port: int = Field(8501, ge=0, lt=2**16, description="of REST")
    models: tuple[str, ...] = Field(MODELS, min_length=1, description="which models to load")
    page: bool = Field(True, description="whether REST's / is a page to try the cascade on")
    tls_certificate: Path | None = Field(None, description="a PEM file")
    tls_key: Path | None = Field(None, description="a PEM file")
    api_key: SecretStr | None = Field(None, description="what requests must carry as x-api-key")
    insecure: bool = Field(False, description="listen beyond loopback with neither TLS nor an API key")
    poll_seconds: float = Field(1.0, gt=0, description="how often models.config is looked at")
    drain_seconds: float = Field(
        30.0, ge=0, description="how long requests may take to end when the server is told to stop"
    )
    load_seconds: float = Field(600.0, gt=0, description="how long a version may take until it answers")
    limits: Limits = Limits()

    @field_validator("api_key")
    @classmethod
    def _key_can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key is not None else None
        if text is not None and not (text and text.isascii() and text.isprintable() and text == text.strip()):
            raise ValueError(
                "expected printable ASCII without spaces around it, and not nothing; choose another key, or none"
            )
        return key

    @field_validator("models")
    @classmethod
    def _models_exist(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for name in models:
            if name not in MODELS:
                raise ValueError(f"there is no model {name!r}; {nearest(name, list(MODELS))}")
        return models

    @model_validator(mode="after")
    def _no_one_listens_in(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InputError("TLS needs both a certificate and a key: --tls-certificate FILE --tls-key FILE")
        protected = self.tls_certificate is not None or self.api_key is not None
        if not is_loopback(self.host) and not protected and not self.insecure:
            raise InputError(
                f"--host {self.host} is beyond this machine: give --tls-certificate and --tls-key, or an API key, "
                "or say --insecure"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
