"""The response-format prompts of LLaVA-1.5, written once. Source: arXiv:2310.03744, table 7 and section 3.2."""

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."
