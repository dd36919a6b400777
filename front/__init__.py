"""HTTP: waitress's loop, a request's two halves, what an upload may look like, metrics as text."""
