"""Hiding and redrawing what may be a trigger, with an autoencoder of the defender's own images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn, optim
from torch.nn import functional

from refine.core.errors import UserError
from refine.defending.protocol.card import DefenseCard
from refine.defenses.local_mae import search
from refine.defenses.local_mae.autoencoder import MaskedAutoencoder
from refine.defenses.local_mae.defense import AutoencoderRecipe, Defended, Params, autoencoder, load
from refine.defenses.local_mae.search import Search, similarity
from refine.defenses.local_mae.training import DrawingHidden, hidden
from refine.models.card import WEIGHTS, read_card, write_card
from refine.models.classifier import Classifier, ClassifierCard, Normalization
from refine.shards.reading.tensors import save_tensors
from refine.training.batches import Batch
from refine.training.recipe import Augment
from support import synthetic
from tiny import CPU, classifier, classifier_folder

ACROSS, PATCH = 8, 2
TOKENS = ACROSS**2
SPOT = 43
"""The token that holds a trigger; neither the first nor the last, and not at the edge."""
WHERE = slice(5 * PATCH, 6 * PATCH), slice(3 * PATCH, 4 * PATCH)


def _network() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(ACROSS * PATCH, PATCH, 32, 2, 2, (16, 1, 2)).eval()


def _pixels(count: int = 5) -> Tensor:
    """Gray images with a little noise and a white token."""
    noise = torch.rand(count, 3, ACROSS * PATCH, ACROSS * PATCH, generator=Generator().manual_seed(1))
    pixels = 0.4 + 0.02 * noise
    pixels[:, :, *WHERE] = 1.0
    return pixels


def _by_mean(pixels: Tensor, mask: Tensor) -> Tensor:
    """Draws hidden tokens in the mean color of the others."""
    where = _network().spread(mask)
    mean = (pixels * ~where).sum(dim=(2, 3)) / (~where).sum(dim=(2, 3))
    return torch.where(where, mean[..., None, None], pixels)


def _backdoored(pixels: Tensor) -> Tensor:
    """Class 1 where that token is white, else 0."""
    return (pixels[:, :, *WHERE].mean(dim=(1, 2, 3)) > 0.9).long()


def _search() -> Search:
    return Search(_by_mean, _backdoored, ACROSS, list(range(5)))


def test_tokens_go_row_by_row() -> None:
    network, images = _network(), torch.rand(2, 3, 16, 16)
    tokens = network.tokenized(images)
    assert torch.equal(tokens[:, 1], images[:, :, :2, 2:4].flatten(1))
    assert torch.equal(tokens[:, ACROSS], images[:, :, 2:4, :2].flatten(1))
    assert torch.equal(network.untokenized(tokens), images)
    assert torch.equal(
        network.spread(torch.arange(TOKENS).expand(2, -1))[0, 0, ::2, ::2].flatten(), torch.arange(TOKENS)
    )


@torch.no_grad()
def test_the_autoencoder_sees_nothing_that_is_hidden_and_no_other_image() -> None:
    network, images = _network(), torch.randn(3, 3, 16, 16)
    masks = torch.rand(3, TOKENS) < torch.tensor([[0.2], [0.5], [0.75]])
    drawn = network(images, masks)
    other = torch.where(network.spread(masks), torch.randn_like(images), images)
    torch.testing.assert_close(network(other, masks), drawn)
    alone = torch.cat([network(images[row : row + 1], masks[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(alone, drawn, rtol=1e-4, atol=1e-5)
    seen = torch.where(network.spread(masks), images, torch.randn_like(images))
    assert not torch.allclose(network(seen, masks), drawn, atol=1e-2)


def test_it_learns_to_draw_what_is_hidden() -> None:
    torch.manual_seed(0)
    network, of = MaskedAutoencoder(16, 4, 32, 1, 2, (32, 1, 2)), classifier()
    recipe = AutoencoderRecipe(epochs=1, augment=Augment())
    drawing = DrawingHidden(network, of, Nothing(), recipe, CPU)
    optimizer, generator = optim.AdamW(network.parameters(), lr=3e-3), Generator().manual_seed(0)
    losses = []
    for _ in range(200):
        pixels = torch.rand(16, 3, 1, 1, generator=generator).expand(-1, -1, 16, 16)  # of one color each
        step = drawing.step(Batch(pixels, ()))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        losses.append(step.terms["loss"].item())
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])
    pixels = torch.rand(4, 3, 1, 1, generator=generator).expand(-1, -1, 16, 16)
    masks = hidden(4, 16, generator)
    with torch.no_grad():
        drawn = network(of.normalize(pixels), masks)
    error = ((drawn - of.normalize(pixels)) * network.spread(masks)).square().mean()
    assert error < 0.2 * of.normalize(pixels).var()


class Nothing:
    """No batches."""

    def __len__(self) -> int:
        return 0

    def epoch(self, seed: int) -> Iterator[Batch]:
        del seed
        return iter(())


def test_three_quarters_of_each_image_are_hidden_in_training() -> None:
    masks = hidden(6, TOKENS, Generator().manual_seed(0))
    assert masks.sum(dim=1).tolist() == [48] * 6
    assert not torch.equal(masks[0], masks[1])


def test_the_token_that_the_answer_depends_on_has_the_highest_score_and_is_redrawn() -> None:
    pixels = _pixels()
    unlike, changed = _search().scores(pixels)
    for scores in (unlike, changed):
        assert 0 <= scores.min() <= scores.max() <= 1
        assert (scores.topk(9, dim=1).indices == SPOT).any(dim=1).all()  # the window of SSIM reaches its neighbors
    others = (changed >= changed[:, [SPOT]]).sum(dim=1) - 1  # hidden each time when that one was, by chance
    assert others.max() <= 3
    masks = _search().masks(pixels)
    assert masks.dtype == torch.bool
    assert masks.shape == (5, len(search.THRESHOLDS), TOKENS)
    assert masks[:, -1, SPOT].all()
    assert _backdoored(pixels).all()
    assert not _backdoored(_by_mean(pixels, masks[:, -1])).any()


def test_masks_contain_each_other_and_leave_most_of_the_image() -> None:
    generator = Generator().manual_seed(3)
    pixels = torch.rand(6, 3, 16, 16, generator=generator)
    weights = torch.randn(3 * 16 * 16, 4, generator=generator)
    masks = Search(_by_mean, lambda x: (x.flatten(1) @ weights).argmax(dim=1), ACROSS, list(range(6))).masks(pixels)
    for one, other in zip(masks.unbind(dim=1)[:-1], masks.unbind(dim=1)[1:], strict=True):
        assert not (one & ~other).any()
    assert (masks.float().mean(dim=2) < search.MOST).all()
    assert masks.any()


def test_it_asks_for_nothing_but_answers_as_often_as_it_says() -> None:
    asked: Counter[str] = Counter()

    def answer(pixels: Tensor) -> Tensor:
        asked["images"] += len(pixels)
        return _backdoored(pixels)

    Search(_by_mean, answer, ACROSS, [7]).masks(_pixels(1))
    assert asked["images"] == 48


def test_an_image_is_searched_in_the_same_way_in_any_company() -> None:
    pixels = torch.rand(6, 3, 16, 16, generator=Generator().manual_seed(5))
    pixels[:3, :, *WHERE] = 1.0
    together = Search(_by_mean, _backdoored, ACROSS, list(range(6))).masks(pixels)
    alone = [Search(_by_mean, _backdoored, ACROSS, [row]).masks(pixels[row : row + 1]) for row in range(6)]
    assert torch.equal(together, torch.cat(alone))


def test_drawn_tokens_are_so_many_of_the_best_and_neighbors_are_likelier() -> None:
    scores = torch.linspace(1, 0, TOKENS).expand(400, -1)
    best = search._best(scores, torch.full((400,), 20))
    assert best[:, :20].all()
    assert not best[:, 20:].any()
    luck = torch.rand(400, TOKENS, generator=Generator().manual_seed(0))
    count = torch.arange(400) % 11
    drawn = _search()._drawn(torch.full_like(scores, 0.1), best, count, luck)
    assert torch.equal(drawn.sum(dim=1), count)
    assert not (drawn & ~best).any()
    two = _search()._drawn(torch.full_like(scores, 0.1), best, torch.full((400,), 2), luck)
    beside = (_search()._beside(two) * two).sum(dim=1) > 0
    pairs = sum(
        1 for a in range(20) for b in range(a) if a - b == ACROSS or (a - b == 1 and a // ACROSS == b // ACROSS)
    )
    assert beside.float().mean() > 2 * pairs / (20 * 19 / 2)


@pytest.mark.parametrize(("count", "moves"), [(0, False), (1, True), (2, True), (3, True)])
def test_a_token_that_alone_is_suspicious_is_looked_at(count: int, moves: bool) -> None:
    pixels = _pixels(1)
    scores = torch.zeros(1, TOKENS)
    scores[0, SPOT] = 0.35
    refined = Search(_by_mean, _backdoored, ACROSS, [1]).refined(pixels, scores, torch.tensor([count]), 0)
    assert (refined[0, SPOT] > scores[0, SPOT]) == moves  # the answer changes without it
    scores = scores.roll(1)
    refined = Search(_by_mean, _backdoored, ACROSS, [1]).refined(pixels, scores, torch.tensor([min(count, 1)]), 0)
    assert (refined[0, SPOT + 1] < scores[0, SPOT + 1]) == moves


def test_similarity_is_that_of_its_formula() -> None:
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(similarity(images, images), torch.ones(2, 1, 16, 16), rtol=1e-4, atol=1e-4)
    dark, light = torch.full((1, 3, 12, 12), 0.2), torch.full((1, 3, 12, 12), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(similarity(dark, light), torch.full((1, 1, 12, 12), expected), rtol=1e-3, atol=1e-3)
    one, other = images[:1], images[1:]
    window = torch.outer(*[torch.exp(-((torch.arange(11.0) - 5) ** 2) / 4.5)] * 2)
    window /= window.sum()
    a, b = one[0, :, 2:13, 3:14].double(), other[0, :, 2:13, 3:14].double()
    means = [(window * x).sum(dim=(1, 2)) for x in (a, b)]
    moments = [(window * x).sum(dim=(1, 2)) for x in (a * a, b * b, a * b)]
    over = (2 * means[0] * means[1] + 1e-4) * (2 * (moments[2] - means[0] * means[1]) + 9e-4)
    under = (means[0] ** 2 + means[1] ** 2 + 1e-4) * (moments[0] + moments[1] - means[0] ** 2 - means[1] ** 2 + 9e-4)
    assert similarity(one, other)[0, 0, 7, 8].item() == pytest.approx((over / under).mean().item(), abs=1e-4)
    bright = 0.9 + 0.01 * images
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity(bright[:1], bright[1:]), similarity(bright[1:], bright[:1]))
        rounded = similarity(bright[:1], bright[1:])
    assert torch.equal(rounded, similarity(bright[:1], bright[1:]))


@torch.no_grad()
def test_an_image_with_nothing_to_redraw_stays_as_it_is() -> None:
    defended = Defended(classifier(), _network(), seed=1).eval()
    pixels = synthetic(3)[0] / 255
    none = torch.zeros(3, 5, TOKENS, dtype=torch.bool)
    assert torch.equal(defended.drawn(pixels, none), pixels)
    some = none.clone()
    some[1, 3:, :4] = True
    drawn = defended.drawn(pixels, some)
    assert torch.equal(drawn[::2], pixels[::2])
    changed = (drawn[1] != pixels[1]).any(dim=0)
    assert changed[:2, :8].any()
    assert not changed[2:].any()
    assert not changed[:, 8:].any()


@torch.no_grad()
def test_a_trigger_is_redrawn_and_networks_stay_as_they_are() -> None:
    class Backdoored(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return functional.one_hot(_backdoored(pixels), 3).float()

    of = Classifier(Backdoored(), Normalization(mean=[0.0] * 3, std=[1.0] * 3))
    defended = Defended(of, _network(), seed=1).train()
    statistics = {name: module.training for name, module in defended.named_modules()}
    pixels = _pixels()
    assert of(pixels).argmax(dim=1).tolist() == [1] * 5
    assert defended(pixels).argmax(dim=1).tolist() == [0] * 5
    assert {name: module.training for name, module in defended.named_modules()} == statistics
    assert defended(pixels[:0]).shape == (0, 3)


def test_weights_that_draw_no_numbers_are_refused(tmp_path: Path) -> None:
    classifier_folder(tmp_path / "classifier")
    of = read_card(tmp_path / "classifier", ClassifierCard).weights_sha256
    params = Params(patch_side=4, width=16, depth=1, heads=1, decoder_width=16, decoder_depth=1)
    network = autoencoder(params, 16)
    for name in ("draw", "embed"):
        state = network.state_dict()
        state[f"{name}.weight"] = torch.full_like(state[f"{name}.weight"], 1e38)
        folder = tmp_path / name
        folder.mkdir()
        sha256 = save_tensors(folder / WEIGHTS, state)
        card = DefenseCard(
            kind="local_mae", classifier_sha256=of, settings=params.model_dump(), weights_sha256=sha256, training={}
        )
        write_card(folder, card)
        with pytest.raises(UserError, match="computes values that are not finite"):
            load(folder, tmp_path / "classifier")


@pytest.mark.parametrize(("side", "patch"), [(16, 2), (28, 2), (32, 2), (64, 4), (96, 6), (224, 14)])
def test_tokens_are_a_sixteenth_of_the_image_where_they_can_be(side: int, patch: int) -> None:
    small = Params(width=16, depth=1, heads=1, decoder_width=16, decoder_depth=1)
    assert autoencoder(small, side).patch == patch


@pytest.mark.parametrize(("side", "patch"), [(28, 3), (16, 8), (224, 1), (17, None)])
def test_images_that_cannot_be_cut_into_tokens_are_refused(side: int, patch: int | None) -> None:
    told = rf"images of {side} pixels cannot be cut into tokens of .*; set defense_settings\.local_mae\.patch_side to"
    with pytest.raises(UserError, match=told):
        autoencoder(Params(patch_side=patch), side)


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width has to be a multiple of heads"):
        Params(width=32, heads=3)
