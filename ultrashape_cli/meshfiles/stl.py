"""STL: text or binary, and the size a binary header announces."""


def declared_bytes(head: bytes) -> int:
    """Return the bytes that a file with this beginning must have; 0 for text."""
    # Some binary writers start their free-text header with "solid" as well.
    is_text = head.lstrip()[:5].lower() == b"solid" and b"facet" in head[:1024].lower()
    if is_text or len(head) < 84:
        return 0 if is_text or head.lstrip()[:5].lower() == b"solid" else 84
    return 84 + 50 * int.from_bytes(head[80:84], "little")
