"""Models and data laid out for others, in the folder layout of the Hugging Face hub."""
