"""The nouns: what lies on disk, what a model takes and gives, and how values become arrays. No HTTP, no batching."""
