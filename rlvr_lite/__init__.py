"""Which parameter-efficient method should train your small reasoning model with verifiable rewards?"""

__version__ = "0.1.0"
