"""A trained model in the form in which such are passed on: safetensors, a configuration and a card."""
