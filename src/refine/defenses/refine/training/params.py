"""Parameters of the stage train-refine; `recipe: paper` takes every default of the recipe."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from refine.core.bounds import MOST_SNAPSHOTS, BatchSize, Epochs, Width
from refine.core.params import Number, PositiveNumber, Section, Seed, Share, Weight
from refine.defenses.refine.model.transform_params import TransformParams
from refine.training.recipe import Augment, DefenderRecipe, Optimizer, Schedule, paper_by_name

InputSpace = Literal["normalized_clamp01", "pixel"]
Form = Literal["binary", "categorical"]


class Loss(Section):
    """Attributes:
    utility: `binary`, element by element as in the released code, or `categorical`, as the paper writes it; the
        latter is larger by about the number of classes, and the weight of the contrastive term wants to grow with it.
    supcon_weight: lambda of the paper; 0 switches the contrastive term off.
    supcon_temperature: tau of the contrastive term.
    """

    utility: Form = "binary"
    supcon_weight: Weight = 0.1
    supcon_temperature: PositiveNumber = 0.07


class RefineRecipe(DefenderRecipe):
    """The paper trains 150 epochs by SGD with crops, flips and gray images."""

    place: ClassVar[str] = "train_refine.recipe"

    epochs: Epochs = 150
    batch_size: BatchSize = 256
    drop_last: bool = True
    optimizer: Optimizer = Optimizer(lr=0.01)
    schedule: Schedule = Schedule(factor=0.8)
    augment: Augment = Augment(crop_scale=0.8, flip=0.5, grayscale=0.2)


MOST_SHIFT = 16
"""Pixels that a warp may shift places by."""


class EncoderRecipe(DefenderRecipe):
    """How the encoder learns what the classifier says of images; ours, the paper has no such training.

    Attributes:
        learns: the classifier's answers as `labels`, as `probabilities`, which tell more, or those and its `features`,
            from which it computes them (as in SimKD, Chen et al., CVPR 2022); these need an encoder that has the
            classifier's architecture.
        label_smoothing: share of the target spread over all classes, of labels.
        temperature: of probabilities; larger ones tell more of the less likely classes.
        features_weight: of 1 - the cosine of its features and the classifier's, beside the divergence of probabilities.
        mixup: mix each image with one drawn from its batch, at a share drawn from [0, 1). The classifier is asked for
            its answers to the mixtures, so `pseudo_labels` has to be `each_step`. A mixture may look to it like a faint
            trigger, and its answer then tells the encoder where that leads, see docs/results.md.
        random_patterns: largest opacity of patterns, noise and other images, that are drawn for half of the images and
            laid over them; the encoder learns to answer as without. 0 trains without.
        universal_perturbation: largest change of a pixel, of pixels in [0, 1], by a perturbation that is the same for
            all images, sought during the training as the one that the encoder answers worst; about half of each batch
            has it, and the encoder learns to answer as without it. 0 trains without.
        universal_warp: the same by shifting places of the image, by no more pixels than this in each direction.
        precise_statistics: take means and variances of batch normalization anew once it is trained, from about 10,000
            of the images as they are; those of the training are of disturbed ones, too. It lasts where the encoder is
            `frozen`, and changes nothing in a network without batch normalization.
        frozen: leave the encoder as it is while the rest of the transform is trained, which takes less time then.
    """

    place: ClassVar[str] = "train_refine.encoder"

    epochs: Epochs = 8
    batch_size: BatchSize = 256
    drop_last: bool = True
    optimizer: Optimizer = Optimizer(lr=0.2, nesterov=True)
    schedule: Schedule = Schedule(name="one_cycle")
    augment: Augment = Augment(shift=2)
    learns: Literal["labels", "probabilities", "features"] = "labels"
    label_smoothing: Share = 0.1
    temperature: PositiveNumber = 2.0
    features_weight: PositiveNumber = 10.0
    mixup: bool = False
    random_patterns: Share = 0.0
    universal_perturbation: Share = 0.0
    universal_warp: Annotated[Number, Field(ge=0, le=MOST_SHIFT)] = 0.0
    precise_statistics: bool = False
    frozen: bool = False


class SubstituteRecipe(RefineRecipe):
    """How a substitute for the classifier is trained; ours, with the defaults of REFINE's transform."""

    place: ClassVar[str] = "train_refine.substitute.recipe"

    drop_last: bool = False


class SubstituteParams(Section):
    """Attributes:
    width: of the substitute, a network of the classifier's architecture; null takes the classifier's width as well.
    label_smoothing: share of the target spread over all classes.
    recipe: how it is trained.
    """

    width: Width | None = None
    label_smoothing: Share = 0.0
    recipe: Annotated[SubstituteRecipe, BeforeValidator(paper_by_name)] = SubstituteRecipe()


class TrainRefineParams(Section):
    """Attributes:
    seed: of initial weights, batch order, augmentation and the choice of unlabeled images.
    permutation_seed: of the label map; 666 with 10 classes gives the permutation of the public log.
    remap: move the labels by that map, as REFINE does; false leaves each in its place, an ablation.
    transform: a folder in `src/refine/defenses/refine/model/transforms` and its settings; the published one is `unet`.
    input_space: what the transform sees and where its output is clamped.
    initial_output: added to the bias of the transform's last layer before training. Its outputs begin around 0, so that
        half of the values begin at the clamp, where no gradient passes; 0.5 lets them begin in the middle of the range.
    initial_contrast: factor on the weights of that layer before training. At 1, many values still begin at the clamp,
        and some trainings never leave it; with 0.1, and an `initial_output` of 0.5, pictures begin nearly gray.
    unlabeled_fraction: share of the training images, or of those held out, that the defender has; 1 in the released
        code, 0.2 in the paper.
    pseudo_labels: `each_step` asks the classifier for those of the augmented images, as the released code does; `once`
        asks it beforehand for those of the images as they are.
    substitute: a network that learns the classifier's labels first, and then stands for it until the transform is
        trained, for a defender who cannot look into the classifier; null trains with the classifier itself.
    encoder: how the encoder of the transform is trained before the whole of it is; null leaves that out, as the paper
        does.
    snapshots: how many states of the transform are kept for the curves, evenly spaced, the last one included.
    loss: weights of the terms.
    recipe: how the transform is trained.
    """

    seed: Seed
    permutation_seed: Seed = 666
    remap: bool = True
    transform: SerializeAsAny[TransformParams]
    input_space: InputSpace = "normalized_clamp01"
    initial_output: Share = 0.0
    initial_contrast: Annotated[Number, Field(gt=0, le=1)] = 1.0
    unlabeled_fraction: Annotated[Number, Field(gt=0, le=1)] = 1.0
    pseudo_labels: Literal["each_step", "once"] = "each_step"
    substitute: SubstituteParams | None = None
    encoder: EncoderRecipe | None = None
    snapshots: Annotated[int, Field(ge=1, le=MOST_SNAPSHOTS)] = 5
    loss: Loss = Loss()
    recipe: Annotated[RefineRecipe, BeforeValidator(paper_by_name)]

    @model_validator(mode="after")
    def _check_mixup(self) -> Self:
        if self.encoder and self.encoder.mixup and self.pseudo_labels != "each_step":
            raise ValueError("encoder.mixup asks for answers to mixtures; set pseudo_labels to each_step")
        return self

    @model_validator(mode="after")
    def _check_substitute(self) -> Self:
        if self.substitute and self.substitute.width and self.transform.copies_weights:
            raise ValueError(
                f"{self.transform.name} begins with the weights of the network that it is trained through, which wants "
                "the classifier's width; set substitute.width to null, or transform.start to fresh"
            )
        return self

    @model_validator(mode="after")
    def _check_input_space(self) -> Self:
        if self.transform.takes_pixels and self.input_space != "pixel":
            raise ValueError(f"{self.transform.name} takes pixels; set input_space to pixel")
        return self

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        if not self.encoder or self.encoder.learns != "features":
            return self
        if self.substitute and self.substitute.width:
            raise ValueError(
                "the encoder has as many features as the classifier, and a substitute of another width has others; set "
                "substitute.width to null, or encoder.learns to probabilities"
            )
        if not self.transform.has_classifier_features:
            raise ValueError(
                f"the encoder of {self.transform.name} has other features than the classifier; set encoder.learns to "
                "probabilities, or transform.name to encoder_decoder"
            )
        return self
