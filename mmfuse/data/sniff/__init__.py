"""What people have, looked at: which column is the id, the image, the text, the group and the target, and why."""

from mmfuse.data.sniff.guessed import Given, Guess
from mmfuse.data.sniff.look import guess

__all__ = ["Given", "Guess", "guess"]
