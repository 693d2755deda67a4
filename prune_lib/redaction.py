"""Secrets that are written where they do not belong: in the address of a table or of a server."""

from __future__ import annotations

import re

__all__ = ["holds_secret", "redacted"]

# scheme://user:password@host; a container of Azure (abfss://container@account) has no colon.
_USER = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]*:[^/\s@]*@")
# Parameters of signed addresses and of tokens.
_PARAMETER = re.compile(
    r"(?P<before>[?&;](?:sig|signature|token|password|pwd|secret|access_?key|account_?key|x-amz-[a-z-]+)=)[^&;\s]+",
    re.IGNORECASE,
)


def holds_secret(text: str) -> bool:
    """Whether an address has a password, a key or a signature in it.

    >>> [holds_secret(x) for x in ("s3a://KEY:SECRET@bucket/t", "https://h/t?sv=1&sig=x", "abfss://c@a.net/t")]
    [True, True, False]
    """
    return bool(_USER.search(text) or _PARAMETER.search(text))


def redacted(text: str) -> str:
    """A text without what `holds_secret` finds.

    >>> redacted("no answer from http://me:pw@host/api?token=x")
    'no answer from http://***@host/api?token=***'
    """
    return _PARAMETER.sub(r"\g<before>***", _USER.sub(r"\g<before>***@", text))
