"""The closed vocabulary of the miniature world, and the response-format prompts of LLaVA-1.5 that its texts use."""

from __future__ import annotations

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PATTERNS = ("solid", "striped", "dotted")
SIZES = ("small", "large")
TEXTURES = ("plain", "shaded", "speckled", "checked", "gridded", "woven")
TONES = ("light", "dark")

# Row-major, as PLACES[3 * row + column].
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")

# No picture and no text about a picture of split "train" has one of these; every colour and shape stays familiar.
HELD_OUT = (("purple", "star"), ("orange", "cross"), ("blue", "ring"), ("yellow", "square"))

WORDS = (
    "BAKE", "BANK", "BOOK", "BUS", "CAFE", "CLUB", "DELI", "EXIT",
    "FISH", "FIVE", "GOLD", "GYM", "HOME", "HOTEL", "JAZZ", "KIOSK",
    "LIFT", "MENU", "MUSIC", "OPEN", "PARK", "PIZZA", "QUIZ", "SALE",
    "SHOP", "STOP", "TAXI", "TOUR", "VIDEO", "WASH", "YOGA", "ZOO",
)  # fmt: skip

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
ONE_SENTENCE = "Provide a one-sentence caption for the provided image."
OCR_TOKENS = "Reference OCR token: "
REGION = "Provide a short description for this region."
BOX = "Provide the bounding box coordinate of the region this sentence describes."
