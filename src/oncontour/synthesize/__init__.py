"""An image that looks like an MR, made from a CT: how it is learned, made, and how far it can be believed."""
