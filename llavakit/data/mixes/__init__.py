"""Mixtures that ship, one a file: each a value ``MIX``, a :class:`~llavakit.data.blend.Blend` of raw sources."""
