"""The address of a server: what is connected to, what may be shown of it, and what opens its door."""

import base64
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from experts.errors import ModelUnusable


@dataclass(frozen=True, slots=True)
class Address:
    """``url`` holds nothing secret. ``authorization`` is the header's value, None where the server asks for none.

    ``secrets`` are what no message may show.
    """

    url: str
    authorization: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def read_address(base_url: str, api_key: str | None) -> Address:
    """The parts of an address like ``https://name:password@host/v1``, with the key that goes with it.

    Space around the key is no part of it, since files of secrets end in a line break. Raises ModelUnusable, whose text
    shows neither the key nor what stands before the host.
    """
    parts = _split(base_url)
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    key = (api_key or "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ModelUnusable(f"the key for {url} holds characters that no header can carry")
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not (name or password):
        return Address(url, f"Bearer {key}" if key else None, (key,) if key else ())
    if key:
        raise ModelUnusable(f"the address of {url} holds a name or password, and there is a key: only one can be sent")
    basic = base64.b64encode(f"{name}:{password}".encode()).decode()
    secrets = (basic, password, parts.password or "", f"{name}:{password}")
    return Address(url, f"Basic {basic}", tuple(secret for secret in secrets if secret))


def _split(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ModelUnusable("the server's address cannot be used; one like http://127.0.0.1:8000/v1 is needed")
    if parts.query or parts.fragment:
        raise ModelUnusable(f"the address of {parts.hostname} goes on after its path; it has to end like /v1")
    return parts
