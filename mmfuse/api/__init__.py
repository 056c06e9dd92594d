"""The Python door: what one holds in, a model that predicts, explains itself and goes on out."""
