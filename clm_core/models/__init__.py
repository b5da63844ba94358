"""Models without a framework: tokenizers, configurations, first weights, and checks of weight files."""
