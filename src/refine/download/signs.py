"""The classes of GTSRB, and the statistics of its training images.

Mean and standard deviation are those that many projects on GitHub have; we found (0.339, 0.311, 0.321) and
(0.275, 0.264, 0.271) for a quarter of the training images at 32 pixels.
"""

from __future__ import annotations

MEAN = (0.3403, 0.3121, 0.3214)
STD = (0.2724, 0.2608, 0.2669)
CLASSES = [
    *(f"speed limit {number}" for number in (20, 30, 50, 60, 70, 80)),
    "end of speed limit 80",
    *("speed limit 100", "speed limit 120", "no passing", "no passing for trucks", "right of way at next crossing"),
    *("priority road", "yield", "stop", "no vehicles", "no trucks", "no entry", "general caution"),
    *("dangerous curve left", "dangerous curve right", "double curve", "bumpy road", "slippery road"),
    *("road narrows on the right", "road work", "traffic signals", "pedestrians", "children crossing"),
    *("bicycles crossing", "ice or snow", "wild animals", "end of all limits", "turn right ahead", "turn left ahead"),
    *("ahead only", "straight or right", "straight or left", "keep right", "keep left", "roundabout"),
    *("end of no passing", "end of no passing for trucks"),
]
