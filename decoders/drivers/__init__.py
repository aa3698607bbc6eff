"""One file per meter family: data, its sources, its test telegrams."""
