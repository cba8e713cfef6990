"""Text: tokens of files, tokenizers, and text that a network writes."""
