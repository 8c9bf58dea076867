"""`gtsrb`: photographs of 43 German traffic signs, unbalanced.

39,209 training and 12,630 test images, from the archives of the organizers, or from a mirror with them. The training
images come in tracks of thirty photographs of one sign. `training: online` takes those of the first stage of the
competition, 26,640, which is what torchvision takes.

Source: J. Stallkamp, M. Schlipsing, J. Salmen, C. Igel, "Man vs. computer: Benchmarking machine learning algorithms for
traffic sign recognition", 2012.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Literal

from refine.core.errors import UserError
from refine.download import signs
from refine.download.archives import contents, in_zip, listed, photos
from refine.download.fetch import Remote
from refine.download.fitting import Fitted, FittedSide
from refine.download.source import Source, Splits

_URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
TRAINING = {
    "final": Remote(
        name="GTSRB_Final_Training_Images.zip",
        url=f"{_URL}GTSRB_Final_Training_Images.zip",
        size=276_294_756,
        md5="f33fd80ac59bff73c82d25ab499e03a3",
    ),
    "online": Remote(
        name="GTSRB-Training_fixed.zip",
        url=f"{_URL}GTSRB-Training_fixed.zip",
        size=187_490_228,
        md5="513f3c79a4c5141765e10e952eaa2478",
        sha256="df4144942083645bd60b594de348aa6930126c3e0e5de09e39611630abf8455a",
    ),
}
TEST = Remote(
    name="GTSRB_Final_Test_Images.zip",
    url=f"{_URL}GTSRB_Final_Test_Images.zip",
    size=88_978_620,
    md5="c7e4e6327067d32654124b0fe9e82185",
    sha256="48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa",
)
TRUTH = Remote(
    name="GTSRB_Final_Test_GT.zip",
    url=f"{_URL}GTSRB_Final_Test_GT.zip",
    size=99_620,
    md5="fe31e9c9270bbcd7b84b7f21a9d9d9e5",
    sha256="f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d",
)
_TRAINING_IMAGE = re.compile(r"GTSRB/(?:Final_Training/Images|Training)/(\d{5})/[^/]+\.ppm")


class Params(Fitted):
    """Attributes:
    training: the training images, `final` or `online`.
    """

    side: FittedSide = 32
    training: Literal["final", "online"] = "final"


def open_source(params: Params, source: Source) -> Splits:
    """Opens the data set; images are sorted by their names.

    Raises:
        UserError: an archive can neither be found nor downloaded, or is not the published one.
    """
    training, testing = source.fetch(TRAINING[params.training]), source.fetch(TEST)
    found = (_TRAINING_IMAGE.fullmatch(name) for name in listed(training, in_zip))
    train = {match[0]: int(match[1]) for match in found if match}
    table = contents(source.fetch(TRUTH), {"GT-final_test.csv"}, in_zip)["GT-final_test.csv"].decode("utf-8", "replace")
    rows = csv.DictReader(io.StringIO(table), delimiter=";")
    test = {f"GTSRB/Final_Test/Images/{row.get('Filename')}": int(row.get("ClassId") or -1) for row in rows}
    if not train or not test or {*train.values(), *test.values()} - set(range(len(signs.CLASSES))):
        raise UserError(
            f"{training} and {TRUTH.name} do not hold signs of {len(signs.CLASSES)} classes; download them again"
        )
    return Splits(
        classes=signs.CLASSES,
        side=params.side,
        train=photos(training, train, params, in_zip),
        test=photos(testing, test, params, in_zip),
        sizes=(len(train), len(test)),
        mean=signs.MEAN,
        std=signs.STD,
    )
