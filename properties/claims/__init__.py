"""What the documents that this harness started from say, judged: every `Claim` value in here."""
