"""The agent on the gateway: decode, detect, buffer, forward."""

VERSION = "0.1.0"
