"""Papers reproduced: one module each, one folder under ``papers/`` with what came out."""
