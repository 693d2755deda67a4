"""Graph-based sampling: which sessions cover the patterns best for what they cost."""
