"""The exceptions that a user can cause: each is shown as one clear line, without a traceback."""


class UserError(Exception):
    """Bad input, bad config or a bad environment.

    The message is one sentence (or a short list) that names the file, row or key and the fix.
    """


class ConfigError(UserError):
    """Bad config or bad usage: exit code 2."""
