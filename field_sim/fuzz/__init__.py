"""Coverage-guided fuzzing of everything that reads bytes from outside; `python3 tasks.py fuzz`."""
