"""What the command line can be told to do: one module a verb, imported only when it is called for."""
