"""A masked autoencoder (He et al., CVPR 2022): it draws the parts of an image that it is not shown.

An image is cut into square tokens. The encoder, a vision transformer, sees the tokens that are not masked; the decoder
gets what it made of them, and a learned vector at each masked place, and gives the pixels of all tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_WAVELENGTHS = 10_000.0


class MaskedAutoencoder(nn.Module):
    """Normalized images and masks to images.

    Args:
        side: of the images, in pixels.
        patch: side of a token, in pixels; a divisor of `side`.
        width: of the encoder.
        depth: its layers.
        heads: its attention heads.
        decoder: width, layers and heads of the decoder.

    Shapes:
        float [N, 3, side, side] and bool [N, T], True where a token is hidden, with T = (side / patch)², to float
        [N, 3, side, side], in which hidden tokens alone mean anything. Each image has to show a token.
    """

    places: Tensor
    decoder_places: Tensor

    def __init__(
        self, side: int, patch: int, width: int, depth: int, heads: int, decoder: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.patch, self.across = patch, side // patch
        self.embed = nn.Linear(3 * patch**2, width)
        self.encoder = _transformer(width, depth, heads)
        self.narrow = nn.Linear(width, decoder[0])
        self.hidden = nn.Parameter(0.02 * torch.randn(decoder[0]))
        self.decoder = _transformer(*decoder)
        self.draw = nn.Linear(decoder[0], 3 * patch**2)
        for name, size in (("places", width), ("decoder_places", decoder[0])):
            self.register_buffer(name, _places(self.across, size), persistent=False)

    @property
    def tokens(self) -> int:
        """T, how many an image has."""
        return self.across**2

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        order = masks.to(torch.int8).argsort(dim=1, stable=True)[:, : int((~masks).sum(dim=1).max())]
        missing = masks.gather(1, order)  # where an image shows fewer tokens than the one with most
        shown = _at(self.embed(self.tokenized(images)) + self.places, order)
        encoded = self.narrow(self.encoder(shown, src_key_padding_mask=missing))
        index = order.unsqueeze(-1).expand_as(encoded)
        filled = self.hidden.to(encoded.dtype).expand(*masks.shape, -1)
        known = torch.where(missing.unsqueeze(-1), self.hidden.to(encoded.dtype), encoded)
        return self.untokenized(self.draw(self.decoder(filled.scatter(1, index, known) + self.decoder_places)))

    def tokenized(self, images: Tensor) -> Tensor:
        """Float [N, 3, side, side] as [N, T, 3 * patch²], tokens row by row."""
        cut = images.reshape(-1, 3, self.across, self.patch, self.across, self.patch)
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def untokenized(self, tokens: Tensor) -> Tensor:
        """The reverse."""
        cut = tokens.reshape(-1, self.across, self.across, 3, self.patch, self.patch)
        return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def spread(self, values: Tensor) -> Tensor:
        """A value for each token, [N, T], as one for each pixel, [N, 1, side, side]."""
        grid = values.reshape(-1, 1, self.across, self.across)
        return grid.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)


def _transformer(width: int, depth: int, heads: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)


def _at(tokens: Tensor, order: Tensor) -> Tensor:
    return tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _places(across: int, width: int) -> Tensor:
    """Sines and cosines of row and column, float [T, width]; a quarter of the width each (He et al., appendix A.1)."""
    quarter = width // 4
    rates = torch.exp(-math.log(_WAVELENGTHS) * torch.arange(quarter) / quarter)
    angles = torch.arange(across).unsqueeze(1) * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = waves.repeat_interleave(across, 0), waves.repeat(across, 1)
    return torch.cat([rows, columns], dim=1)
