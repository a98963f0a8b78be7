"""Secrets in URLs: passwords, which are refused, and queries, whose signatures and tokens nothing shows or records."""

from __future__ import annotations

import functools
import re
from urllib.parse import parse_qsl

HIDDEN = "…"
"""Stands in the place of a secret."""
REVEAL = {"reveal": True}
"""Context with which pydantic writes a config that is to be used, not shown: its URLs stay whole."""

_NAME = r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})"
_VARIABLE = re.compile(_NAME)
_MARK = "\0"
"""Stands for a variable of the environment, which is no secret itself."""
_SCHEME = r"(?<![\w+.-])(?!(?:github|git)://)[A-Za-z][\w+.-]*://"  # these two have ORG:REPO@REVISION in that place
_PART = 1024
"""Characters of a part of a URL at most: a text of thousands of URLs that are cut takes no thousand times its length."""
_ENDS = "'),;:.]}"
"""What may stand behind a URL in a text."""
_ONLY_VARIABLES = re.compile(rf"(?:{_NAME})+[{re.escape(_ENDS)}]*")
# A colon that begins no port (http://host:80/a@b) and no chain (zip://a::s3://b@c); the secret itself may hold a slash.
_PASSWORD = re.compile(
    rf"""({_SCHEME})([^\s/?#"<>:@\[]{{0,{_PART}}}):(?!:|\d+(?:[/?#\s]|$))([^\s"<>@]{{0,{_PART}}})@(?:[^\s/"<>@]*@)*"""
)
_USER = re.compile(rf"""((?<![\w+.-])https?://)([^\s/?#"<>:@]{{1,{_PART}}})@""")
_QUERY = re.compile(rf"""((?<![\w+.-])https?://[^\s?#"<>]{{0,{_PART}}})[?#]([^\s"<>]+)""")
_OTHER_QUERY = re.compile(rf"""({_SCHEME}[^\s?"<>]{{0,{_PART}}})\?([^\s"<>=]*=[^\s"<>]*)""")
_HIDING = (
    (_PASSWORD, f"{{}}{HIDDEN}@"), (_USER, f"{{}}{HIDDEN}@"), (_QUERY, f"{{}}?{HIDDEN}"), (_OTHER_QUERY, f"{{}}?{HIDDEN}"),
)  # fmt: skip
"""What is hidden of a URL, with what stands in its place behind the first group."""
_SIGNS = re.compile(
    r"x-(amz|goog|oss|cos|obs|ms|bce|tos)-.*|awsaccesskeyid|ossaccesskeyid|googleaccessid|expires|policy|key-pair-id"
    r"|sig|se|st|sp|sv|sr|srt|sip|spr|skoid|sktid|skt|ske|sks|skv"  # of Azure's storage
    r"|jwt|hmac|pw|pwd|.*(token|secret|passw|api[_-]?key|access[_-]?key|signature|credential|authorization).*",
    re.IGNORECASE,
)
"""Parameters of a query that only say who may read."""
_MAY_SIGN = re.compile(r"key|code|auth|session|hash|ticket", re.IGNORECASE)
"""Parameters that may say who reads, or what is read."""
_ADVICE = {
    **dict.fromkeys(("s3", "s3a"), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"),
    **dict.fromkeys(("gs", "gcs"), "set GOOGLE_APPLICATION_CREDENTIALS in the environment, the path of a key file"),
    **dict.fromkeys(
        ("az", "abfs", "abfss", "adl"),
        "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY in the environment",
    ),
    "hf": "set HF_TOKEN in the environment",
    "kaggle": "set KAGGLE_USERNAME and KAGGLE_KEY in the environment",
}
"""How each store's client is given its credentials."""


def masked(text: str) -> str:
    """Returns a text without the passwords and queries of the URLs in it; names of variables stay.

    Args:
        text: a URL, or any text such as an error message.
    """
    if "://" not in text:
        return text
    for pattern, hidden in _HIDING:
        text = pattern.sub(functools.partial(_hide, hidden), text)
    return text


def _hide(hidden: str, match: re.Match[str]) -> str:
    secret = match[match.lastindex or 0]
    if _ONLY_VARIABLES.fullmatch(secret):
        return match[0]
    end = len(secret.rstrip(_ENDS)) if match[0].endswith(secret) else len(secret)  # of a query
    return hidden.format(match[1]) + secret[end:] if end else match[0]


def masked_url(url: str) -> str:
    """Returns a URL, perhaps chained, without passwords and query; unlike in a text, all that follows a `?` is query.

    Args:
        url: or a path, which stays as it is.
    """
    parts = []
    for part in url.split("::"):
        address, mark, query = part.partition("?")
        is_query = mark and part.startswith(("http://", "https://")) and not _ONLY_VARIABLES.fullmatch(query)
        parts.append(f"{masked(address)}?{HIDDEN}" if is_query else masked(part))
    return "::".join(parts)


def password_advice(url: str) -> str | None:
    """Says what to write instead of a URL that holds a password or a key; None if it holds none, or names variables only.

    Args:
        url: perhaps chained, as a config has it; the advice does not repeat it.
    """
    for part in url.split("::"):
        match = _PASSWORD.match(part) or _USER.match(part)
        if match and _hide(HIDDEN, match) == HIDDEN:
            scheme = match[1].removesuffix("://")
            variable = f"name a variable in their place, {scheme}://$LOGIN@HOST/…, and set it to USER:PASSWORD in the environment"
            return f"a URL must not hold a user's password or a key; {_ADVICE.get(scheme, variable)}"
    return None


def credentials_in_query(url: str) -> list[str]:
    """Names the parameters of a URL's query that are signatures, tokens or belong to them, and hold more than variables."""
    return [
        name
        for name, value in _parameters(url)
        if (_SIGNS.fullmatch(name) or _MAY_SIGN.fullmatch(name)) and value.strip(_MARK)
    ]


def names_object(url: str) -> bool:
    """Whether a URL has a query that may decide which object it is of, beside what only signs the request."""
    return not all(_SIGNS.fullmatch(name) for name, _ in _parameters(url))


def _parameters(url: str) -> list[tuple[str, str]]:
    query = url.partition("?")[2].partition("::")[0].partition("#")[0]
    return parse_qsl(_VARIABLE.sub(_MARK, query), keep_blank_values=True)
