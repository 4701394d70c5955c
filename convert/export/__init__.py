"""From Keras stages to a model pack: int8 quantization, proof, the file."""
