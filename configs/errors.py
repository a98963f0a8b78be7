"""The exceptions that a user can cause: each is shown as one clear line, without a traceback."""

from lmworks.configs.url_secrets import masked


class UserError(Exception):
    """Bad input, bad config or a bad environment.

    The message is one sentence (or a short list) that names the file, row or key and the fix. Passwords and queries of URLs in
    it are masked, for it is printed, logged and recorded.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class ConfigError(UserError):
    """Bad config or bad usage: exit code 2."""
