"""The utility's platform: ten bounded contexts on one kernel, composed in `cloud.app`."""
