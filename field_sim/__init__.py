"""A seeded city that drives the real code: households, leaks, meters, radio, gateways, faults."""
