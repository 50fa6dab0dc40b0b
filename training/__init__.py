"""How each pocket model was made: data, tokenizer, training loop, recipe."""
