"""The library: a named, persistent, editable set of labelled examples in one recipe."""
