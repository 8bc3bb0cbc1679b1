"""Draw results as they come: python examples/tiny/grid.py EVALUATION OUT.jpg [--count 24]

EVALUATION is the folder of `ushape evaluate`. Of assets in the order of their names, evenly
from the first to the last: the input, the result of the first checkpoint, the truth.
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, LABEL, BLOCKS = 128, 16, 3
GREY, INK = (245,) * 3, (60,) * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=24)
    arguments = parser.parse_args()
    found = json.loads((arguments.evaluation / "results.json").read_text())["assets"]
    row = next(name for name in found if name != "coarse" and not name.startswith("vae "))
    names = sorted(found["coarse"])
    count = min(arguments.count, len(names))
    shown = [names[number * len(names) // count] for number in range(count)]
    columns = ("coarse", row, "reference")
    high = -(-count // BLOCKS) * (SIDE + LABEL)
    sheet = Image.new("RGB", (BLOCKS * len(columns) * SIDE, high), GREY)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, asset in enumerate(shown):
        left = number % BLOCKS * len(columns) * SIDE
        top = number // BLOCKS * (SIDE + LABEL)
        for place, column in enumerate(columns):
            with Image.open(arguments.evaluation / "pictures" / column / f"{asset}.png") as picture:
                cell = picture.convert("RGB").resize((SIDE, SIDE))
            sheet.paste(cell, (left + place * SIDE, top))
        before, after = (found[key][asset]["chamfer_l1"] for key in ("coarse", row))
        text = f"{asset.rsplit('-', 1)[0]}  {after / before - 1:+.0%}"
        pen.text((left + 6, top + SIDE), text, fill=INK, font=font)
    sheet.save(arguments.out, quality=85)


if __name__ == "__main__":
    main()
