"""One patient at two times: what moved between a planning CT and a CT of the day, and what it carries."""
