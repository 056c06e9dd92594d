"""Encoders: a tower makes `Features` of packed texts or images, and knows how its input is prepared."""
