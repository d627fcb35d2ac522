"""Made-up pictures for the kinds' examples: told once, asked about by each kind in its own way."""

from __future__ import annotations

from llavakit.teacher.context import Box, Context

STALL = Context(
    "stall",
    "stall.jpg",
    (
        "An older woman in a green apron weighs apples on a hanging scale.",
        "A fruit stall under a striped awning, with crates of apples, pears and plums.",
        "Two customers wait at a market stall while the seller weighs fruit.",
        "A woman sells fruit outdoors on a wet street.",
        "A man with a closed umbrella and a girl stand in front of crates full of fruit.",
    ),
    (
        Box("person", (0.412, 0.208, 0.561, 0.770)),
        Box("person", (0.102, 0.176, 0.243, 0.958)),
        Box("person", (0.251, 0.420, 0.338, 0.951)),
        Box("umbrella", (0.083, 0.531, 0.121, 0.902)),
        Box("apple", (0.455, 0.402, 0.497, 0.441)),
        Box("apple", (0.601, 0.688, 0.644, 0.731)),
        Box("apple", (0.640, 0.692, 0.682, 0.735)),
        Box("scale", (0.436, 0.150, 0.522, 0.448)),
    ),
)

KAYAK = Context(
    "kayak",
    "kayak.jpg",
    (
        "A man paddles a yellow kayak on a calm lake with a dog sitting in front of him.",
        "A dog in an orange life vest rides in a kayak.",
        "A single kayak crosses a lake at sunrise, with fog over the water.",
        "A person and a dog out on the water in a small boat.",
        "Pine trees line the far shore of a misty lake behind a kayaker.",
    ),
    (
        Box("person", (0.468, 0.391, 0.590, 0.655)),
        Box("dog", (0.371, 0.478, 0.452, 0.640)),
        Box("boat", (0.248, 0.590, 0.713, 0.722)),
        Box("paddle", (0.392, 0.455, 0.671, 0.610)),
    ),
)
