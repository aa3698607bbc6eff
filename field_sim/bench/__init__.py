"""Figures, each beside the bare limit measured in the same run."""
