"""Where frames come from. Each source is a thread that puts inputs for the core into one inbox."""
