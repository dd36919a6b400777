"""What scripts/bench is made of: the things it measures, how it loads them, and how it reports."""
