"""Secrets that are written where they do not belong: in the address of a table or of a server."""

from __future__ import annotations

import re

__all__ = ["holds_secret", "redacted"]

# scheme://user:password@host. A password may hold slashes, as half of AWS's keys do, and a further @; a port
# is none, and a container of Azure (abfss://container@account) has no colon. Quotes end an address in a text;
# pathlib makes one slash of two.
_USER = re.compile(
    # S3's have no port: a secret key may begin as one, 12/abc.
    r"(?P<before>s3[an]?:/{1,2}(?=[^/\s:'\"]*:)|[A-Za-z][A-Za-z0-9+.-]*:/{1,2}(?=[^/\s:'\"]*:"
    r"(?!\d{1,5}(?:[/?#,\s]|$))))[^/\s:'\"]*:[^\s'\"]*@",
    re.IGNORECASE,
)
# https://token@host, as servers of Git and of MLflow take it.
_TOKEN = re.compile(r"(?P<before>https?:/{1,2})[^/\s@'\"]+@", re.IGNORECASE)
# Parameters of signed addresses and tokens; a name may begin in any way: access_token, X-Goog-Signature.
_PARAMETER = re.compile(
    r"(?P<before>[?&;#](?:(?:[\w.-]*[_.-])?(?:sig|signature|token|password|passwd|pwd|secret|credential"
    r"|(?:access|account|api|secret)[_-]?key)|sharedaccess(?:signature|key)|x-amz-[a-z-]+)=)[^&;\s'\"]+",
    re.IGNORECASE,
)
_ALL = (_USER, _TOKEN, _PARAMETER)


def holds_secret(text: str) -> bool:
    """Whether an address has a password, a key or a signature in it.

    >>> [holds_secret(x) for x in ("s3a://KEY:SEC/RET@bucket/t", "https://h/t?sv=1&sig=x", "https://token@h/t")]
    [True, True, True]
    >>> holds_secret("s3a://AKIA:12/RET@bucket/t")
    True
    >>> [holds_secret(x) for x in ("abfss://c@a.net/t", "hdfs://name:8020/a@b", "models:/experts@champion")]
    [False, False, False]
    """
    return any(pattern.search(text) for pattern in _ALL)


def redacted(text: str) -> str:
    """A text without what `holds_secret` finds.

    >>> redacted("no answer from http://me:p@w@host/api?access_token=x")
    'no answer from http://***@host/api?access_token=***'
    """
    text = _USER.sub(r"\g<before>***@", text)
    return _PARAMETER.sub(r"\g<before>***", _TOKEN.sub(r"\g<before>***@", text))
