"""The one exception that a user can cause: shown as one clear line, without a traceback."""


class UserError(Exception):
    """Bad input, bad config or a bad environment.

    The message is one sentence (or a short list) that names the file, row or key and the fix.
    """
