"""Removes secrets from text: tokens, passwords, and credentials in URLs."""

import os
import re
import sys
from contextlib import suppress

NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY|API_KEY|ACCESS_KEY|CREDENTIALS?)$")
"""Suffixes of environment variables whose values are secrets, such as HF_TOKEN or AWS_SECRET_ACCESS_KEY."""

SHORTEST = 8
"""The fewest characters of a secret; anything shorter may be part of any word."""

PATTERNS = (
    (re.compile(r"\b(hf_|gh[opsur]_|sk-|api_org_)[A-Za-z0-9_-]{8,}"), "***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), r"\1 ***"),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@"), r"\1***@"),
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+"), r"\1"),
)
"""Tokens by their shape, headers, and the name, password and signed query of an address."""

USER = re.compile(r"(?<=://)[^/?#\s]*@")
"""`user:token@`, before the host of an address."""

PARAMETER = re.compile(
    r"([?&;][^=&#\s]*(?:token|key|sig|secret|passw|auth|credential)[^=&#\s]*=)[^&#\s'\"]+", re.IGNORECASE
)
"""A parameter that signs a request or opens a door, such as `?X-Amz-Signature=...`."""


def without_secrets(text: str) -> str:
    """The text with `***` in the place of each secret that this process knows, or that looks like one."""
    for secret in sorted(_known(), key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def without_credentials(text: str) -> str:
    """The text without the credentials in its addresses; the addresses stay recognizable."""
    if "://" not in text:
        return text
    return PARAMETER.sub(r"\1...", USER.sub("", text))


def _known() -> set[str]:
    values = {value for name, value in os.environ.items() if NAMES.search(name.upper())}
    if "huggingface_hub.utils" in sys.modules:  # Otherwise it has read no token file, or a signal ended its import.
        with suppress(OSError, UnicodeDecodeError):  # What cannot be read is in no message.
            values.add(sys.modules["huggingface_hub"].get_token() or "")
    return {value for value in values if len(value) >= SHORTEST}
