"""LoRaWAN's own frames (L2 1.0.x and 1.1): layout, integrity codes, encryption, session keys."""
