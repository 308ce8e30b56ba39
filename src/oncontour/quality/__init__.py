"""How right each slice of a contour is: a net, a bound that holds, and rules."""
