"""The shared language of gateway and cloud: bytes ⇄ what a meter said. No I/O, no clock."""
