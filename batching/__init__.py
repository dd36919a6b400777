"""The verbs: take a row in, queue it, batch it, run it, answer it, and keep the processes alive. No HTTP, no JSON."""
