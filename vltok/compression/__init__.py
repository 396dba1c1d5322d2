"""Pictures as small files: codes under an entropy coder, and what is written around them."""
