"""Long, rough tests of the real platform: processes killed, disks lost, clocks wrong.

    python3 tasks.py soak NAME [--n N] [--seed S]

Each ends with counts and exits non-zero when a reading was lost, doubled or wrong. Two oracles:
`sent` is what an agent's SQLite committed (its outbox keeps acknowledged rows), and the city knows
what every register truly was.
"""
