"""A budget for vltok whose multipliers are learned until the target holds."""
