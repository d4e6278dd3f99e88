"""The environment that a service is started with: passwords in their URLs, and nowhere else."""

from __future__ import annotations

import json

import pytest

from shared.aws.credentials import CredentialsInvalid, completed, local_secrets

URLS = {
    "REDIS_URL": "rediss://cache:6379/0",
    "NATS_URL": "tls://a:4222,b:4222",
    "POSTGRES_URL": "postgresql://bidding@db:5432/bidding?sslmode=require",
}


class Secrets:
    """Secrets by name, which remembers what was read."""

    def __init__(self, **texts: str) -> None:
        self._texts = texts
        self.read: list[str] = []

    def __call__(self, name: str) -> str:
        self.read.append(name)
        return self._texts[name]


def test_without_any_the_environment_stays_and_no_secret_is_read() -> None:
    secrets = Secrets()
    assert completed(URLS | {"HOME": "/"}, secrets) == URLS | {"HOME": "/"}
    assert secrets.read == []


def test_passwords_beside_the_urls_go_into_them_and_are_gone() -> None:
    given = {"REDIS_PASSWORD": "r/1", "NATS_USER": "bidding", "NATS_PASSWORD": "n@2", "POSTGRES_PASSWORD": "p:3"}
    assert completed(URLS | given, Secrets()) == {
        "REDIS_URL": "rediss://:r%2F1@cache:6379/0",
        "NATS_URL": "tls://bidding:n%402@a:4222,tls://bidding:n%402@b:4222",
        "POSTGRES_URL": "postgresql://bidding:p%3A3@db:5432/bidding?sslmode=require",
    }


def test_a_secret_as_rds_writes_it_names_user_and_password() -> None:
    secrets = Secrets(db=json.dumps({"username": "admin", "password": "p", "engine": "postgres", "port": 5432}))
    found = completed(URLS | {"POSTGRES_SECRET_ARN": "db"}, secrets)
    assert found["POSTGRES_URL"] == "postgresql://admin:p@db:5432/bidding?sslmode=require"
    assert "POSTGRES_SECRET_ARN" not in found
    assert secrets.read == ["db"]


def test_a_secret_may_be_the_bare_password() -> None:
    found = completed(URLS | {"REDIS_SECRET_ARN": "token"}, Secrets(token="abc\n"))
    assert found["REDIS_URL"] == "rediss://:abc@cache:6379/0"


def test_secrets_of_settings_fill_in_what_is_not_set() -> None:
    secrets = Secrets(one='{"ALIAS_SECRET": "a", "REDIS_PASSWORD": "r"}', two='{"ALIAS_SECRET": "b", "X": "y"}')
    found = completed(URLS | {"AWS_SECRETS_ARNS": "one, two", "X": "mine"}, secrets)
    assert (found["ALIAS_SECRET"], found["X"]) == ("a", "mine")
    assert found["REDIS_URL"] == "rediss://:r@cache:6379/0"
    assert "AWS_SECRETS_ARNS" not in found


@pytest.mark.parametrize(
    ("given", "secret", "text"),
    [
        ({"REDIS_PASSWORD": "x", "REDIS_SECRET_ARN": "s"}, "y", "both set"),
        ({"NATS_USER": "bidding"}, "", "neither NATS_PASSWORD nor NATS_SECRET_ARN"),
        ({"POSTGRES_URL": "", "POSTGRES_PASSWORD": "x"}, "", "POSTGRES_URL is not set"),
        ({"POSTGRES_URL": "postgresql://u:other@h/d", "POSTGRES_PASSWORD": "x"}, "", "another one"),
        ({"POSTGRES_SECRET_ARN": "s"}, '{"username": "u"}', "no text `password`"),
        ({"POSTGRES_SECRET_ARN": "s"}, "{hunter2", "is not JSON"),
        ({"AWS_SECRETS_ARNS": "s"}, '["hunter2"]', "not a JSON object"),
        ({"AWS_SECRETS_ARNS": "s"}, '{"ALIAS_SECRET": 7}', "ALIAS_SECRET in s is not a text"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_value(given: dict[str, str], secret: str, text: str) -> None:
    with pytest.raises(CredentialsInvalid, match=text) as caught:
        completed(URLS | given, Secrets(s=secret))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None or "hunter2" not in str(caught.value.__cause__)


def test_secrets_that_are_published_are_recognised() -> None:
    environment = {
        "REDIS_URL": "redis://:local-redis@h",
        "NATS_URL": "nats://u:mine@h",
        "ALIAS_SECRET": "local-development",
        "GRAFANA_PASSWORD": "local-grafana",
        "LOG_LEVEL": "local-x",
    }
    assert local_secrets(environment) == ["ALIAS_SECRET", "GRAFANA_PASSWORD", "REDIS_URL"]
