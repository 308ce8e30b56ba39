"""The IBSI features, on dose and on CT."""
