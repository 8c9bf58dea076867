"""Faults that somebody could put into the project, and the test that guards against each."""

from __future__ import annotations

from dataclasses import dataclass

DISTANCES = (
    "tests/evaluation/test_evaluate_by_hand.py::"
    "test_distances_are_those_of_what_the_network_makes_of_the_same_image_each_way"
)


@dataclass(frozen=True)
class Mutant:
    """A fault and its guard.

    Attributes:
        fault: what is wrong in the copy.
        edits: file, text that stands there exactly once, and what takes its place.
        guard: the test that has to fail.
    """

    fault: str
    edits: tuple[tuple[str, str, str], ...]
    guard: str


MUTANTS = (
    Mutant(
        "inverse permutation",
        (("src/refine/defenses/refine/model/label_map.py", "torch.argsort(permutation)", "permutation"),),
        "tests/defenses/refine/test_label_map.py::test_the_score_of_class_j_moves_to_its_place_in_the_permutation",
    ),
    Mutant(
        "classifier left in train mode",
        (("src/refine/models/classifier.py", "classifier.eval().requires", "classifier.train().requires"),),
        "tests/defenses/refine/test_train.py::test_the_classifier_is_the_same_after_training_batch_statistics_included",
    ),
    Mutant(
        "true labels in the loss",
        (
            (
                "src/refine/training/training_set.py",
                "    device, settings = compute.device, compute.machine\n",
                '    device, settings, fields = compute.device, compute.machine, ("label",)\n',
            ),
            (
                "src/refine/defending/pseudo_labels.py",
                "        if not self._once:\n            return self.of(augmented)\n        return batch",
                "        return batch",
            ),
        ),
        "tests/defenses/refine/test_train.py::test_true_labels_leave_no_trace[plain]",
    ),
    Mutant(
        "ASR counted over the target class",
        (
            (
                "src/refine/poisoning/poison.py",
                "attack.relabel(test.labels) != test.labels",
                "torch.ones_like(test.labels, dtype=torch.bool)",
            ),
        ),
        "tests/attacks/test_badnets.py::test_test_images_of_the_target_class_are_left_out",
    ),
    Mutant(
        "trigger mirrored at test",
        (
            (
                "src/refine/poisoning/poison.py",
                "applied(attack.trigger, chunk.images,",
                "applied(lambda images, keys: attack.trigger(images.flip(3), keys).flip(3), chunk.images,",
            ),
        ),
        "tests/poisoning/test_poison.py::"
        "test_triggered_images_show_the_trigger_where_the_attack_puts_it_and_leave_out_the_target_class",
    ),
    Mutant(
        "clean-label trigger no stronger at test",
        (("src/refine/attacks/sig.py", "self.params.test_amplitude * self", "self.params.amplitude * self"),),
        "tests/attacks/test_sig.py::test_the_wave_is_weaker_on_training_images_than_at_test",
    ),
    Mutant(
        "a trigger from a file that DVC does not see",
        (("src/refine/attacks/custom.py", "inside(self.setting.own_files, name)", "self.setting.own_files / name"),),
        "tests/attacks/test_custom.py::test_a_file_outside_the_folder_is_refused",
    ),
    Mutant(
        "flips that mirror a trigger that comes after them",
        (("src/refine/backdoor/train.py", "if self.twins is not None and settings.flip", "if False"),),
        "tests/attacks/test_batt.py::test_every_poisoned_image_is_flipped_first_and_turned_then",
    ),
    Mutant(
        "U-Net evaluated in train mode",
        (("src/refine/defenses/refine/defense.py", "card.input_space).eval()", "card.input_space).train()"),),
        "tests/defenses/refine/test_refine.py::"
        "test_a_loaded_defense_is_in_eval_mode_so_that_an_answer_does_not_depend_on_its_batch",
    ),
    Mutant(
        "labels read where only images are wanted",
        (("src/refine/shards/reading/shard.py", "labels = [] if only_images else", "labels = [] if False else"),),
        "tests/shards/test_shards.py::test_where_only_images_are_wanted_nothing_else_is_opened",
    ),
    Mutant(
        "BGR",
        (("src/refine/shards/reading/shard.py", ".permute(0, 3, 1, 2)", ".permute(0, 3, 1, 2).flip(1)"),),
        "tests/shards/test_shards.py::test_what_was_written_is_read",
    ),
    Mutant(
        "BGR in images that another program wrote",
        (("src/refine/shards/reading/shard.py", ".permute(2, 0, 1)", ".permute(2, 0, 1).flip(0)"),),
        "tests/shards/test_shards.py::test_an_image_that_another_program_wrote_is_read_as_well",
    ),
    Mutant(
        "batch statistics left out of the moving average",
        (("src/refine/training/average.py", "use_buffers=True", "use_buffers=False"),),
        "tests/training/test_loop.py::test_the_moving_average_of_weights_and_statistics_is_what_counts",
    ),
    Mutant(
        "random state absent from the checkpoint",
        (("src/refine/training/loop.py", '        self._random.set_state(state["random"])\n', ""),),
        "tests/training/test_loop.py::test_an_interrupted_run_goes_on_with_the_order_and_the_draws_that_were_to_come",
    ),
    Mutant(
        "a dependency missing",
        (("dvc.yaml", "      - src/refine/defenses/refine/training\n", ""),),
        "tests/pipeline/test_dependencies.py::TestEachStage::"
        "test_the_code_that_its_source_reaches_is_the_code_that_it_declares",
    ),
    Mutant(
        "a dependency too many",
        (("dvc.yaml", "      - src/refine/defenses/refine/training\n", "      - src/refine/defenses/refine\n"),),
        "tests/pipeline/test_dependencies.py::TestEachStage::"
        "test_the_code_that_its_source_reaches_is_the_code_that_it_declares",
    ),
    Mutant(
        "initial weights of another network than the released one",
        (
            (
                "src/refine/architectures/resnet18/network.py",
                "        self.head = nn.Linear(8 * width, num_classes)\n",
                "        self.head = nn.Linear(8 * width, num_classes)\n"
                "        nn.init.kaiming_normal_(self.stem[0].weight, mode='fan_out', nonlinearity='relu')\n",
            ),
        ),
        "tests/architectures/test_resnet18.py::test_it_begins_with_the_weights_that_torch_gives_its_layers",
    ),
    Mutant(
        "batch normalization of the U-Net with another momentum",
        (
            (
                "src/refine/defenses/refine/model/transforms/unet/transform.py",
                "nn.BatchNorm2d(middle)",
                "nn.BatchNorm2d(middle, momentum=0.2)",
            ),
        ),
        "tests/defenses/refine/test_unet.py::test_its_batch_normalizations_are_torchs_as_in_the_released_code",
    ),
    Mutant(
        "CIFAR-10 normalized by other constants",
        (("src/refine/download/cifar.py", "std=(0.2023, 0.1994, 0.2010)", "std=(0.2470, 0.2435, 0.2616)"),),
        "tests/sources/test_cifar10.py::test_they_are_normalized_by_the_constants_of_the_released_code",
    ),
    Mutant(
        "a preset that is not its source",
        (("presets/paper.yaml", "first_channels: 64", "first_channels: 32"),),
        "tests/params/test_published.py::test_paper_trains_the_defense_as_the_released_code_does",
    ),
    Mutant(
        "a lone image in a batch left to torch",
        (("src/refine/backdoor/train.py", "    refuse_lone_image(classifier, images, recipe, compute)\n", ""),),
        "tests/backdoor/test_train_backdoor.py::test_a_lone_image_is_a_sentence_where_the_network_cannot_normalize_it",
    ),
    Mutant(
        "loss of bfloat16 values",
        (
            (
                "src/refine/defenses/refine/training/train.py",
                "remap(to_float32(raw), defense.permutation)",
                "remap(raw, defense.permutation)",
            ),
        ),
        "tests/training/test_precision.py::test_loss_and_terms_are_of_float32_values",
    ),
    Mutant(
        "contrastive term of bfloat16 values",
        (
            (
                "src/refine/defenses/refine/defense.py",
                "return to_float32(out).clamp(0, 1)",
                "return out.clamp(0, 1)",
            ),
        ),
        "tests/training/test_precision.py::test_loss_and_terms_are_of_float32_values",
    ),
    Mutant(
        "snapshots of the last weights where the average counts",
        (
            (
                "src/refine/defenses/refine/training/train.py",
                "tensor in weights.items()",
                "tensor in self.module.state_dict().items()",
            ),
        ),
        "tests/defenses/refine/test_train.py::test_a_snapshot_is_the_state_after_its_epoch_and_not_later",
    ),
    Mutant(
        "snapshots lost by an interruption",
        (("src/refine/training/loop.py", '        self._task.kept.update(state["kept"])\n', ""),),
        "tests/training/test_loop.py::test_what_a_run_kept_is_still_there_after_an_interruption",
    ),
    Mutant(
        "processes that draw alike",
        (("src/refine/training/loop.py", "manual_seed(draws + self._processes.rank)", "manual_seed(draws)"),),
        "tests/training/test_loop.py::test_processes_share_the_order_of_an_epoch_and_draw_each_their_own",
    ),
    Mutant(
        "a history of the first process alone",
        (("src/refine/training/processes.py", "            distributed.all_reduce(values)\n", "            pass\n"),),
        "tests/training/test_processes.py::test_the_history_tells_the_mean_over_the_images_of_all_processes",
    ),
    Mutant(
        "distances between features of images that are not normalized",
        (("src/refine/evaluation/wasserstein.py", "classifier.normalize(pixels)))", "pixels))"),),
        f"{DISTANCES}[pixel]",
    ),
    Mutant(
        "distances that ignore the input space",
        (
            (
                "src/refine/evaluation/wasserstein.py",
                "defense.network_inputs(defense.transformed(pixels))",
                "classifier.normalize(defense.transformed(pixels))",
            ),
        ),
        f"{DISTANCES}[normalized_clamp01]",
    ),
    Mutant(
        "distances between a triggered image and another clean one",
        (
            (
                "src/refine/evaluation/wasserstein.py",
                "tests.clean.images[tests.truth.clean_rows[chosen.triggered]]",
                "tests.clean.images[chosen.triggered]",
            ),
        ),
        f"{DISTANCES}[pixel]",
    ),
    Mutant(
        "diagnostics of the first classes alone",
        (("src/refine/evaluation/test_sets.py", "sorted(turns, key=itemgetter(0))", "turns"),),
        "tests/evaluation/test_test_sets.py::test_diagnosed_images_are_of_all_classes",
    ),
    Mutant(
        "features with and without the defense exchanged",
        (
            (
                "src/refine/evaluation/pictures.py",
                '(NoDefense.title, "before"), (defense, "after")',
                '(NoDefense.title, "after"), (defense, "before")',
            ),
        ),
        "tests/evaluation/test_evaluate_by_hand.py::test_maps_show_features_without_the_defense_first",
    ),
    Mutant(
        "probabilities before the label map",
        (
            (
                "src/refine/defenses/refine/defense.py",
                "return self.mapped(to_float32(self._raw(pixels)).softmax(dim=1))",
                "return to_float32(self._raw(pixels)).softmax(dim=1)",
            ),
        ),
        "tests/defenses/refine/test_refine.py::test_it_computes_what_the_definition_says",
    ),
    Mutant(
        "labels of the classifier inside looked up the wrong way",
        (
            (
                "src/refine/defenses/refine/defense.py",
                "return self.inverse.to(labels.device)[labels]",
                "return self.permutation.to(labels.device)[labels]",
            ),
        ),
        "tests/evaluation/test_answers.py::test_raw_answers_are_those_of_the_classifier_inside",
    ),
    Mutant(
        "the defense measured twice, and the bare classifier never",
        (
            (
                "src/refine/evaluation/evaluate.py",
                "{BARE: bare, models.name: defense}",
                "{BARE: defense, models.name: defense}",
            ),
        ),
        "tests/evaluation/test_evaluate_by_hand.py::test_all_figures_are_those_of_a_loop_over_single_images[pixel]",
    ),
    Mutant(
        "a rating that rewards a gain of accuracy",
        (("src/refine/evaluation/metrics.py", "max(0.0, before[name] - after[name])", "before[name] - after[name]"),),
        "tests/evaluation/test_metrics.py::test_the_rating_by_hand",
    ),
    Mutant(
        "intervals of the trigger's shares over all test images",
        (
            (
                "src/refine/evaluation/metrics.py",
                'len(truth.labels if name == "benign_accuracy" else truth.given)',
                "len(truth.labels)",
            ),
        ),
        "tests/evaluation/test_evaluate_by_hand.py::test_all_figures_are_those_of_a_loop_over_single_images[pixel]",
    ),
    Mutant(
        "a further defense that writes the file of another stage",
        (("src/refine/evaluation/evaluate.py", "if outputs.bare or name != BARE:", "if True:"),),
        "tests/evaluation/test_evaluate.py::test_a_further_defense_leaves_the_figures_without_defense_alone",
    ),
    Mutant(
        "a perturbation that helps the encoder",
        (
            (
                "src/refine/defenses/refine/training/universal_perturbation.py",
                "each.detach() + _STEP * most",
                "each.detach() - _STEP * most",
            ),
        ),
        "tests/defenses/refine/test_universal_perturbation.py::"
        "test_it_moves_to_where_the_loss_grows_and_no_further_than_the_bound",
    ),
)
