"""Sessions: the built-in demo data, reading tables of events or sessions, integer encoding."""
