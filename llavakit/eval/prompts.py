"""The response-format prompts of LLaVA-1.5, written once. Source: arXiv:2310.03744, section 3 and its data tables."""

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."
REGION = "Please provide the bounding box coordinate of the region this sentence describes:"
