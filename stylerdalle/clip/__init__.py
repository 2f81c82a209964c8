"""CLIP: OpenAI's package, and scores of pictures and texts."""
