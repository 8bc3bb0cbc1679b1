"""What a result is used for next: other faces, texture coordinates, a normal map."""
