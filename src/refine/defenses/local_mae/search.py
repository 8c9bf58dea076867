"""Where in an image a trigger may be: places that are hard to redraw, or without which the answer changes.

The search of BDMAE (Sun et al., arXiv 2303.15564, section 3.2), for each image by itself. The official code takes
numbers of tokens and the last thresholds from the mean of a batch, so that an answer depends on its companions. It also
takes the unlikeness of a token from one of its pixels, here it is their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

HIDDEN = 0.75
"""Share of the tokens that is hidden at a time, in the first scores and in training."""
ROUNDS, DRAWS = 5, 5
STEPS = 10
STEP = 0.05
THRESHOLDS = (0.6, 0.55, 0.5, 0.45, 0.4)
"""They approach 1 together where an image has too many tokens above the last one."""
MOST = 0.25
"""No larger share of an image is replaced in the end."""
_UNLIKE = 0.2
_NEIGHBOR = 0.5
_APPROACH, _APPROACHES = 0.99, 200
_GRID = 1e-4
"""Scores are rounded to it, so that what a batch changes in the last digits decides less."""
_WINDOW, _SIGMA = 11, 1.5
_DARK, _FLAT = 0.01**2, 0.03**2

Restore = Callable[[Tensor, Tensor], Tensor]
"""Pixels float [N, 3, H, W] and hidden tokens bool [N, T] to the images with these drawn anew, in levels of 1/255."""
Answer = Callable[[Tensor], Tensor]
"""Pixels to the classes that the classifier answers, int64 [N]. Nothing else is asked of it."""


@dataclass(frozen=True)
class Search:
    """The search in images of one size.

    Attributes:
        restore: draws hidden tokens.
        answer: asks the classifier.
        across: tokens along a side.
        keys: a number for each image, from which everything random about it is drawn.
    """

    restore: Restore
    answer: Answer
    across: int
    keys: list[int]

    @property
    def tokens(self) -> int:
        """T, how many an image has."""
        return self.across**2

    def scores(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """First scores of each token, float [N, T] in [0, 1].

        Returns:
            How unlike the image what is drawn in its place is (1 - SSIM), and how often the answer changes without it.
        """
        said = self.answer(pixels)
        total, shown = torch.zeros_like(pixels), torch.zeros_like(pixels[:, :1])
        unlike, changed = [], torch.zeros(len(pixels), self.tokens, device=pixels.device)
        orders = self._orders().to(pixels.device)
        hidden = int(HIDDEN * self.tokens)
        for number in range(ROUNDS):
            for place in range(DRAWS):
                mask = torch.zeros(len(pixels), self.tokens, dtype=torch.bool, device=pixels.device)
                mask.scatter_(1, orders[:, number, place * hidden : (place + 1) * hidden], True)
                drawn = self.restore(pixels, mask)
                changed += mask * (self.answer(drawn) != said).unsqueeze(1)
                where = self._pixels(mask.float(), pixels)
                total, shown = total + where * drawn, shown + where
            mean = torch.where(shown > 0, total / shown.clamp(min=1), pixels)
            unlike.append(self._tokens(1 - similarity(pixels, mean)))
        mean = torch.stack(unlike).mean(dim=0).clamp(0, 1)
        return (mean / _GRID).round() * _GRID, changed / (ROUNDS * DRAWS)

    def refined(self, pixels: Tensor, scores: Tensor, count: Tensor, turn: int) -> Tensor:
        """Scores after some of the best tokens were hidden, again and again: up where the answer changes, else down.

        Args:
            pixels: float [N, 3, H, W].
            scores: float [N, T].
            count: of the tokens that are looked at, int64 [N].
            turn: of the random numbers.
        """
        said = self.answer(pixels)
        luck = self._luck(turn).to(pixels.device)
        for step in range(STEPS):
            best = _best(scores, count)
            mask = self._drawn(scores, best, (count // 2).clamp(min=1).minimum(count), luck[:, step])
            kept = self.answer(self.restore(pixels, mask)) == said
            moved = torch.where(kept, STEP, -STEP).unsqueeze(1)
            scores = scores - moved * mask + moved * (best & ~mask)
        return scores

    def masks(self, pixels: Tensor) -> Tensor:
        """What is to be drawn anew: bool [N, 5, T], the first within the second, and so on; none may be set."""
        if not len(pixels):
            return torch.zeros(0, len(THRESHOLDS), self.tokens, dtype=torch.bool, device=pixels.device)
        unlike, changed = self.scores(pixels)
        unlike = self.refined(pixels, unlike, (unlike >= _UNLIKE).sum(dim=1), 0)
        seen = (changed * ROUNDS * DRAWS).round().long().sum(dim=1)
        changed = self.refined(pixels, changed, seen // (ROUNDS * DRAWS), 1)
        scores = (unlike + changed) / 2
        below = 1 - torch.tensor(THRESHOLDS, device=pixels.device).expand(len(pixels), -1)
        for _ in range(_APPROACHES):
            large = (scores >= 1 - below[:, -1:]).float().mean(dim=1, keepdim=True) >= MOST
            if not large.any():
                break
            below = torch.where(large, below * _APPROACH, below)
        return scores.unsqueeze(1) >= (1 - below).unsqueeze(2)

    def _orders(self) -> Tensor:
        """For each image and round some permutations of the tokens, one after the other: [N, rounds, draws * T]."""
        made = []
        for key in self.keys:
            generator = Generator().manual_seed(key)
            permutations = [torch.randperm(self.tokens, generator=generator) for _ in range(ROUNDS * DRAWS)]
            made.append(torch.cat(permutations).view(ROUNDS, DRAWS * self.tokens))
        return torch.stack(made)

    def _luck(self, turn: int) -> Tensor:
        """Uniform numbers for each image, step and token, float [N, steps, T]."""
        made = [Generator().manual_seed((key + 1 + turn) % 2**63) for key in self.keys]
        return torch.stack([torch.rand(STEPS, self.tokens, generator=generator) for generator in made])

    def _drawn(self, scores: Tensor, best: Tensor, count: Tensor, luck: Tensor) -> Tensor:
        """So many of the best tokens, bool [N, T], one by one; the neighbors of one that is drawn are likelier then.

        The next one is that whose score times its uniform number is largest.
        """
        mask = torch.zeros_like(best)
        for number in range(int(count.max())):
            weights = scores + _NEIGHBOR * (self._beside(mask) > 0)
            chance = (weights.clamp(min=1e-6) * luck).masked_fill(~best | mask, -1)
            chosen = functional.one_hot(chance.argmax(dim=1), self.tokens).bool()
            mask |= chosen & (number < count).unsqueeze(1)
        return mask

    def _beside(self, mask: Tensor) -> Tensor:
        """How many of the tokens above, below, left and right are in a mask; float [N, T]."""
        grid = functional.pad(mask.float().reshape(-1, self.across, self.across), (1, 1, 1, 1))
        around = grid[:, :-2, 1:-1] + grid[:, 2:, 1:-1] + grid[:, 1:-1, :-2] + grid[:, 1:-1, 2:]
        return around.flatten(1)

    def _pixels(self, tokens: Tensor, like: Tensor) -> Tensor:
        grid = tokens.reshape(-1, 1, self.across, self.across)
        return functional.interpolate(grid, size=like.shape[-2:], mode="nearest")

    def _tokens(self, maps: Tensor) -> Tensor:
        """The mean of a map [N, 1, H, W] over each token, [N, T]."""
        return functional.adaptive_avg_pool2d(maps, self.across).flatten(1)


def _best(scores: Tensor, count: Tensor) -> Tensor:
    """The tokens with the highest scores, so many of each image; bool [N, T]."""
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < count.unsqueeze(1)


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) at each pixel, the mean of the channels, float32 [N, 1, H, W]; of pixels [N, 3, H, W].

    Computed in float64, as it subtracts squares that are nearly equal.
    """
    places = torch.arange(_WINDOW, device=one.device, dtype=torch.float64) - _WINDOW // 2
    bell = torch.exp(-places.square() / (2 * _SIGMA**2))
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2
    one, other = one.double(), other.double()

    def mean(images: Tensor) -> Tensor:
        flat = functional.pad(images, (_WINDOW // 2,) * 4, mode="replicate").flatten(0, 1).unsqueeze(1)
        return functional.conv2d(flat, window).reshape(images.shape)

    with torch.autocast(one.device.type, enabled=False):
        means = mean(one), mean(other)
        spreads = mean(one * one) - means[0] ** 2, mean(other * other) - means[1] ** 2
        together = mean(one * other) - means[0] * means[1]
    light = (2 * means[0] * means[1] + _DARK) / (means[0] ** 2 + means[1] ** 2 + _DARK)
    return (light * (2 * together + _FLAT) / (spreads[0] + spreads[1] + _FLAT)).mean(dim=1, keepdim=True).float()
