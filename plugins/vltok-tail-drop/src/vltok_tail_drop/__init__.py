"""A tokenizer for vltok that codes an image as one sequence, which may be cut anywhere."""
