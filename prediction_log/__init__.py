"""The memory: every answer in a spool on disk before it leaves, and from there in a SQL table. No HTTP, no models."""
