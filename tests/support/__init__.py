"""What tests of several folders import: parts that are real, small, and start fast."""
