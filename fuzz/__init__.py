"""Whatever a file holds, reading it ends in values or in one of our errors."""
