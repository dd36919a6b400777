"""Other servers with the same model, for `scripts/bench --peers`: catalogue.py says what each is."""
