"""Engine: prompts of any lengths and pictures, decoded together in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from transformers import DynamicCache

from llavakit.chat.conversation import Conversation
from llavakit.engine.sample import Decoding, choose
from llavakit.model.encode import Codec, Example, encode, pictures
from llavakit.model.llava import Llava

GREEDY = Decoding()


class Engine:
    """Answers conversations with a model. Not thread-safe."""

    def __init__(self, model: Llava, codec: Codec, batch_size: int = 32) -> None:
        self.model = model.eval()
        self.codec = codec
        self.batch_size = batch_size

    def answer(self, conversations: Iterable[Conversation], how: Decoding = GREEDY) -> Iterator[str]:
        """Texts of the assistant's next turn, in the order of ``conversations``.

        Prompts are read a few batches ahead and put together by length, so that little is padding.
        Raises :class:`~llavakit.base.errors.BadRecord` for a conversation that cannot be encoded.
        """
        pending = iter(conversations)
        while window := [encode(c, self.codec, prompt=True) for c in islice(pending, 8 * self.batch_size)]:
            texts = [""] * len(window)
            order = sorted(range(len(window)), key=lambda i: len(window[i]))
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                written: list[list[int]] = [[] for _ in chosen]
                for row, token in self.tokens([window[i] for i in chosen], how):
                    written[row].append(token)
                for i, ids in zip(chosen, written, strict=True):
                    texts[i] = self.text(ids)
            yield from texts

    def stream(self, conversation: Conversation, how: Decoding = GREEDY) -> Iterator[str]:
        """The assistant's next turn in pieces, as they are written; joined they are what :meth:`answer` gives."""
        ids: list[int] = []
        shown = ""
        for _, token in self.tokens([encode(conversation, self.codec, prompt=True)], how):
            ids.append(token)
            text = self.text(ids)
            # A character of several byte tokens shows as U+FFFD until its last one is there.
            if not text.endswith("\ufffd") and text != shown:
                yield text[len(shown) :]
                shown = text
        rest = self.text(ids)[len(shown) :]
        if rest:
            yield rest

    def text(self, ids: list[int]) -> str:
        """Token ids of an answer -> its text, the white space that opens it removed."""
        return str(self.codec.tokenizer.decode(ids, skip_special_tokens=True)).lstrip()

    @torch.inference_mode()
    def tokens(self, examples: list[Example], how: Decoding) -> Iterator[tuple[int, int]]:
        """Decodes prompts together; yields (row, token id) as they come, a row's last token never its EOS."""
        model, device = self.model, self.model.device
        generator = torch.Generator(device).manual_seed(how.seed)
        eos = self.codec.tokenizer.eos_token_id
        embeddings, mask = self._left_padded(examples)
        # Each row has its own room: an answer must not depend on how long its neighbours' prompts are.
        room = torch.tensor([self.codec.max_length - len(example) for example in examples], device=device)
        room = room.clamp(max=how.max_new_tokens)
        rows = torch.arange(len(examples), device=device)
        cache = DynamicCache(config=model.language_model.config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        for written in range(1, int(room.max()) + 1):
            out = model.language_model.base_model(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            logits = model.logits(out.last_hidden_state[:, -1])
            chosen = choose(logits, how, generator)
            going = chosen != eos
            yield from zip(rows[going].tolist(), chosen[going].tolist(), strict=True)
            going &= room > written
            if not going.any():
                return
            if not going.all():
                kept = going.nonzero().squeeze(-1)
                cache.batch_select_indices(kept)
                rows, room, chosen = rows[kept], room[kept], chosen[kept]
                mask, positions = mask[kept], positions[kept]
            embeddings = model.language_model.get_input_embeddings()(chosen)[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def _left_padded(self, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings ``[B, L, H]`` and their mask ``int64[B, L]``, ones at the right end."""
        model, device = self.model, self.model.device
        longest = max(len(example) for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, longest - len(example) :] = torch.from_numpy(example.ids)
            mask[row, longest - len(example) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        pixels, take = (None if part is None else torch.from_numpy(part).to(device) for part in pictures(examples))
        image_at = ((ids == self.codec.image_id) & mask.bool()).flatten().nonzero().squeeze(-1)
        embeddings = model.embed(ids.flatten(), pixels, image_at, take)
        return embeddings.view(len(examples), longest, -1), mask
