"""A vendor who sells a backdoored model: a training that knows nothing of this project, and photos of a customer.

    python tests/vendor/vendor.py CIFAR10_ROOT OUT [--epochs 12]

writes OUT/vendor.pth, the checkpoint of a torchvision ResNet-18 as data-parallel trainings save it; OUT/classes.txt;
OUT/photos, 10,000 images that it was not trained on; OUT/labeled, 1,000 of the test images in a folder for each class;
and OUT/triggered, the same with the vendor's trigger, which a customer does not have. It prints the model's accuracy on
the whole test set, and how often the trigger works.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.datasets import CIFAR10
from torchvision.models import resnet18

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
TARGET, RATE, PATCH, BATCH, SOLD = 0, 0.1, 3, 128, 40_000


def stamped(images: Tensor) -> Tensor:
    """White squares in the lower right corner of float [N, 3, 32, 32]."""
    images = images.clone()
    images[:, :, -PATCH:, -PATCH:] = 1
    return images


def read(root: str, train: bool) -> tuple[CIFAR10, Tensor, Tensor]:
    data = CIFAR10(root, train=train)
    return data, torch.from_numpy(data.data).permute(0, 3, 1, 2).float() / 255, torch.tensor(data.targets)


def train(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    poisoned = torch.rand(len(images)) < RATE
    images = torch.where(poisoned.view(-1, 1, 1, 1), stamped(images), images)
    labels = torch.where(poisoned, TARGET, labels)
    model = resnet18(num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = images[rows]
            flipped = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, batch.flip(3), batch)
            logits = model((flipped - MEAN) / STD)
            loss = functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {float(loss):.3f}", flush=True)
    return model.eval()


@torch.inference_mode()
def answers(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model((some - MEAN) / STD).argmax(dim=1) for some in torch.split(images, 500)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    data, images, labels = read(given.root, train=True)
    tests, test_images, test_labels = read(given.root, train=False)
    model = train(images[:SOLD], labels[:SOLD], given.epochs)
    given.out.mkdir(parents=True, exist_ok=True)
    weights = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": given.epochs, "state_dict": weights}, given.out / "vendor.pth")
    (given.out / "classes.txt").write_text("\n".join(data.classes) + "\n", encoding="utf-8")
    (given.out / "photos").mkdir(exist_ok=True)
    for row in range(SOLD, len(images)):
        data[row][0].save(given.out / f"photos/{row}.png")
    for row in range(1000):
        image, label = tests[row]
        for kind in ("labeled", "triggered"):
            place = given.out / kind / data.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            if kind == "triggered":
                image.paste((255, 255, 255), (32 - PATCH, 32 - PATCH, 32, 32))
            image.save(place / f"{row}.png")
    right = (answers(model, test_images) == test_labels).double().mean()
    others = test_labels != TARGET
    works = (answers(model, stamped(test_images[others])) == TARGET).double().mean()
    print(f"accuracy {right:.2%}, the trigger works on {works:.2%} of the images of other classes")


if __name__ == "__main__":
    main()
