"""Secrets in URLs: passwords, which are refused, and queries, whose signatures and tokens nothing shows or records."""

from __future__ import annotations

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
_ENDS = "'\"),;:.]}>"
"""What may stand behind a URL in a text."""
_ONLY_VARIABLES = re.compile(rf"(?:{_NAME})+[{re.escape(_ENDS)}]*")
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]*://"
_IN_TEXT = re.compile(rf"{_SCHEME}\S*")
"""What may hold URLs in a text; a quote or a bracket does not end it, for a secret may hold one."""
_PARTS = re.compile(rf"{_SCHEME}|[?#]")
_CHAINED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:::|://))")
"""Between the parts of a chained URL; the `::` of an address such as [::1] is none."""
# A colon that begins no port (http://host:80/a@b) and no chain (zip://a::s3://b@c); the secret itself may hold a slash.
_USER = re.compile(r"([^/?#:@\[\s]*)(@|:(?!:|\d+(?:[/?#\s]|$)))")
_MORE = re.compile(r"(?:[^\s/@]*@)*")
_HTTP = ("http", "https")
_WITH_REVISION = ("github", "git")
"""Schemes that have ORG:REPO@REVISION in the place of a login."""
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
        text: a URL, or any text such as an error message; the time is proportional to its length.
    """
    return _IN_TEXT.sub(lambda match: _hide(match[0], _ENDS), text) if "://" in text else text


def masked_url(url: str) -> str:
    """Returns a URL, perhaps chained, without passwords and query; unlike in a text, all that follows a `?` is query.

    Args:
        url: or an assignment of one; a path stays as it is.
    """
    return _hide(url) if "://" in url else url


def _hide(url: str, ends: str = "") -> str:
    """Returns a URL, or several without space between them, without the secrets.

    Args:
        url: with what stands around it.
        ends: characters that are no part of a query at its end.
    """
    kept: list[str] = []
    begin = place = 0
    scheme = ""
    last_at, last_value = url.rfind("@"), url.rfind("=")  # looked for once: a text may hold very many URLs
    while mark := _PARTS.search(url, place):
        place = mark.end()
        if mark[0] not in "?#":
            scheme = _scheme(mark[0])
            if place <= last_at and (host := _host_behind_login(url, place, scheme)):
                kept += [url[begin:place], f"{HIDDEN}@"]
                begin = place = host
            continue
        has_value = place <= last_value
        if (scheme in _HTTP and (mark[0] == "?" or has_value)) or (scheme and mark[0] == "?" and has_value):
            query = url[place:]
            length = len(query.rstrip(ends)) if ends else len(query)
            if length and not _ONLY_VARIABLES.fullmatch(query):
                kept += [url[begin : mark.start()], f"?{HIDDEN}"]
                begin = place + length
            break
    return "".join([*kept, url[begin:]])


def _scheme(mark: str) -> str:
    """Returns the scheme of a mark such as `https://`; empty where nothing behind it is secret."""
    scheme = mark.removesuffix("://").lstrip("0123456789+.-").lower()
    return "" if scheme in _WITH_REVISION else scheme


def _host_behind_login(url: str, begin: int, scheme: str) -> int:
    """Returns where the host begins behind a login with a password or a key; 0 if there is none, or of variables only.

    Args:
        url: that holds it.
        begin: where the login would begin.
        scheme: of the URL; of some a user alone is no secret.
    """
    match = _USER.match(url, begin) if scheme else None
    at = match.end() - 1 if match and match[2] == "@" else url.find("@", match.end()) if match else -1
    if match is None or at < 0:
        return 0
    more = _MORE.match(url, at + 1)
    host = more.end() if more else at + 1
    password = url[match.end() : host - 1] if match[2] == ":" else ""
    secret = password or (url[begin : host - 1].rstrip(":") if scheme in _HTTP else "")
    return host if secret and not _ONLY_VARIABLES.fullmatch(secret) else 0


def password_advice(url: str) -> str | None:
    """Says what to write instead of a URL that holds a password or a key; None if it holds none, or names variables only.

    Args:
        url: perhaps chained, as a config has it; the advice does not repeat it.
    """
    for part in _CHAINED.split(url):
        mark = re.match(_SCHEME, part)
        scheme = _scheme(mark[0]) if mark else ""
        host = _host_behind_login(part, mark.end(), scheme) if mark else 0
        if host and not re.search(r"\s", part[:host]):  # else it is a text that begins with a URL
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
    queries = [part.partition("?")[2].partition("#")[0] for part in _CHAINED.split(url)]
    return [pair for query in queries for pair in parse_qsl(_VARIABLE.sub(_MARK, query), keep_blank_values=True)]
