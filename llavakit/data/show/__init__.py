"""A page of what a mixture's records are to the model: pictures, tokens, lengths, packed rows."""
