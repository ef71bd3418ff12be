"""What one object alone can show to be wrong, as CEL rules that the API server itself applies."""

from typing import Any

RULES: dict[type, list[dict[str, Any]]] = {}
