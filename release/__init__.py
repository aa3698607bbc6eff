"""What leaves the clone for a gateway: one `.pyz`, and the packages that vendors want it in."""
