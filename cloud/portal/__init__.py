"""What citizens and staff see: the web application and, later, what serves it alone."""
