"""The agent on the gateway: decode, detect, buffer, forward."""
