"""GLB: the size its header announces."""


def declared_bytes(head: bytes) -> int:
    """Return the bytes that a file with this beginning must have.

    Raises:
        ValueError: It is not GLB.
    """
    if head[:4] != b"glTF":
        raise ValueError("is not a binary glTF file")
    return int.from_bytes(head[8:12], "little") if len(head) >= 12 else 12
