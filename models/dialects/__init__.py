"""The languages requests are spoken in; each module turns a body into items and outputs into an answer."""
