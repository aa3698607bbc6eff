"""The agent on the processors of real gateways, emulated: ARMv5 (Conduit) and ARMv7 (Kerlink)."""
