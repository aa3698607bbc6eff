"""What every context stands on: database, event bus, keys, blobs, clock, sign-in. No water in here."""
