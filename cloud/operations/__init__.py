"""The back office: what operators look at, joined from the contexts below."""
