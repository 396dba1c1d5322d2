"""Speed, as ratios to baselines of the same run: `make bench` prints the table."""
