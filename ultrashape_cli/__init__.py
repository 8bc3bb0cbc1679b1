"""Fine-tune and run UltraShape 1.0 from the command line."""

__version__ = "0.1.0"
