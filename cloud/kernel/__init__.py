"""What every context stands on: database, bus, keys, blobs, clock, sign-in. No water in here."""
