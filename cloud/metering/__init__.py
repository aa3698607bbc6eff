"""Metering: telegrams in, readings and alerts out, every one traceable to its bytes."""
