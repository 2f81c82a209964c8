"""OpenAI's clip package, and what CLIP says of pictures and texts."""
