"""Addresses of files and databases: whether one can be read, and what of it may be shown.

Configuration, logs, records and command lines of jobs repeat addresses, so an address holds no
secret: the configuration refuses one that does, and ``masked`` takes out of every message and log
what looks like one, for instance where a server redirects to an address with a token in it.
Secrets stand in the environment, ``~/.pgpass`` or ``~/.netrc``.

Imported while the Snakefile is parsed: nothing heavy here.
"""

import re
from urllib.parse import unquote, urlsplit

HIDDEN = "***"

# greedy up to the last @ of a word, as a password may hold one itself
_PASSWORD = re.compile(r"((?:^|[\s'\"(\[=,/])[^\s/:@'\"]*:(?!//))\S+@")
_USER = re.compile(r"(https?://)[^\s/?#@'\"]+@", re.IGNORECASE)  # a token, or of no use
_PARAMETER = re.compile(r"(?<=[?&;])[^\s&;'\"]+(?:(?:\s+=|(?<==))\s*[^\s&;'\"]+)?")
_PAIR = re.compile(
    r"(?:^|[?&;,{\s])"
    r"(?P<name>[\w.-]*(?:passw|passphrase|pwd|secret|token|credential|signature|(?:api|access|private"
    r"|client|server)[_-]?key)[\w.-]*|auth|authz|authorization|bearer|jwt|key|pass|pw|session|sig"
    r"|ticket)\s*=\s*\S",
    re.IGNORECASE,
)
_OF_FILES = ("file", "path")  # names that end so tell where a secret lies, which is none


def masked(text: str) -> str:
    """Return a text without the passwords and tokens of the addresses in it."""
    if "@" in text:
        text = _USER.sub(rf"\1{HIDDEN}@", _PASSWORD.sub(rf"\1{HIDDEN}@", text))
    return _PARAMETER.sub(_masked_parameter, text)


def holds_secret(address: str) -> bool:
    """Tell whether an address holds a password or token, also one with blanks in it."""
    return any(masked(text) != text for text in (address, "".join(address.split())))


def is_readable(address: str) -> bool:
    """Tell whether an address can be taken apart: scheme, host, a port that is a number."""
    try:
        parts = urlsplit(address)
        return bool(parts.scheme) and (parts.port or 0) >= 0
    except ValueError:
        return False


def _masked_parameter(found: re.Match[str]) -> str:
    """Return one parameter of a query, ``name=value``, without its value if that is a secret."""
    text, plain = found[0], ""
    while plain != text:  # encoded, perhaps more than once
        plain, text = text, unquote(text)
    secret = any(not pair["name"].lower().endswith(_OF_FILES) for pair in _PAIR.finditer(plain))
    return f"{found[0].partition('=')[0].partition('%3')[0]}={HIDDEN}" if secret else found[0]
