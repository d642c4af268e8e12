"""Short digests, by which results name what they were computed from."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
