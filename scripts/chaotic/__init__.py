"""What scripts/chaos is made of: what it asks, and what it does to the server meanwhile."""
