"""LoRaWAN: what meters send through a network server."""
