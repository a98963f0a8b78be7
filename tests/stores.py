"""An S3 on loopback, and machines with mirrors of its roots."""

import contextlib

from lmworks.tfx import remote

SECRETS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_DEFAULT_REGION": "us-east-1"}


FAULTS = {"left": 0}
"""How many of the next files are not taken."""

FORBIDDEN: set[str] = set()
"""Ends of the names of objects that nobody may read."""


def flaky(app):
    """An S3 that is too busy now and then, and gives some objects to nobody."""

    def answer(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT" and "/store/" in environ["PATH_INFO"] and FAULTS["left"] > 0:
            FAULTS["left"] -= 1
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith((*FORBIDDEN, "\0")):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return app(environ, start_response)

    return answer


def machine(monkeypatch, tmp_path, number: int) -> None:
    """From now on this is another machine: it has another mirror."""
    monkeypatch.setenv(remote.ENVIRONMENT, str(tmp_path / f"machine-{number}"))


def objects(s3) -> dict[str, bytes]:
    """Everything below the root, by name, but for what is removed meanwhile."""
    root = s3.url.removeprefix("s3://")
    found = {}
    for name in s3.find(root):
        with contextlib.suppress(FileNotFoundError):
            found[name.removeprefix(f"{root}/")] = s3.cat_file(name)
    return found
