"""Find out where a medical vision-language model fails before a hospital trusts it."""

__version__ = "0.1.0"
