"""What a model costs: operations and bytes from shapes, and the rates of a machine."""
