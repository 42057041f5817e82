"""leaktop: which call stacks of a running process hold memory that is never given back."""

__version__ = "0.1.0"
