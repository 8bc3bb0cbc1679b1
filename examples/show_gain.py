"""Draw what a fine-tune gained, and say it: python examples/show_gain.py EVALUATION OUT.png

EVALUATION is the folder of `ushape evaluate --checkpoint RUN --against BASE`. The picture has the
coarse mesh, base, fine-tuned and truth of six assets, the least gain first. --others names the same
for assets of other kinds: what was forgotten.
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SCORES = {
    "chamfer_l1": "Chamfer-L1",
    "f_score@0.02": "F-score@0.02",
    "normal_consistency": "normal consistency",
}
SIZE, LABEL, TEXT = 256, 24, 15
GREY, INK = (245,) * 3, (60,) * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--others", type=Path, help="evaluation of assets of other kinds")
    parser.add_argument("--rows", type=int, default=6)
    arguments = parser.parse_args()
    found = json.loads((arguments.evaluation / "results.json").read_text())
    pair = main_comparison(found)
    draw(found, pair, arguments.evaluation / "pictures", arguments.rows).save(arguments.out)
    print(sentence(pair))
    if arguments.others:
        others = main_comparison(json.loads((arguments.others / "results.json").read_text()))
        chamfer = others["scores"]["chamfer_l1"]
        print(
            f"Forgotten: on {chamfer['difference']['count']} shapes of other kinds Chamfer-L1 "
            f"changes by {chamfer['relative']:+.1%}."
        )


def main_comparison(found: dict) -> dict:
    """Returns the fine-tuned run against the checkpoint it was compared with, not the input."""
    return next(c for c in found["comparisons"] if c["against"] != "coarse")


def sentence(pair: dict) -> str:
    parts = []
    for name, label in SCORES.items():
        if score := pair["scores"].get(name):
            chance = "" if score["p_value"] is None else f" (p {score['p_value']:.1g})"
            parts.append(f"{label} {score['relative']:+.1%}{chance}")
    count = pair["scores"]["chamfer_l1"]["difference"]["count"]
    verdict = pair["verdict"]["text"] if pair["verdict"] else "not comparable"
    return (
        f"{pair['row']} against {pair['against']}, {count} held-out assets: "
        f"{', '.join(parts)}: {verdict}."
    )


def draw(found: dict, pair: dict, pictures: Path, rows: int) -> Image.Image:
    ours, theirs = (found["assets"][pair[key]] for key in ("row", "against"))
    gains = {
        asset: 1 - ours[asset]["chamfer_l1"] / theirs[asset]["chamfer_l1"]
        for asset in ours
        if "chamfer_l1" in ours[asset] and theirs.get(asset, {}).get("chamfer_l1")
    }
    order = sorted(gains, key=lambda asset: gains[asset])
    # From the least to the largest, evenly, so that neither is picked.
    count = min(rows, len(order))
    shown = [order[round(k * (len(order) - 1) / max(count - 1, 1))] for k in range(count)]
    columns = ["coarse", pair["against"], pair["row"], "truth"]
    sheet = Image.new("RGB", (len(columns) * SIZE, max(len(shown), 1) * (SIZE + LABEL)), GREY)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for y, asset in enumerate(shown):
        for x, column in enumerate(columns):
            file = pictures / column / f"{asset}.png"
            corner = (x * SIZE, y * (SIZE + LABEL))
            if file.exists():
                with Image.open(file) as picture:
                    sheet.paste(picture.convert("RGB").resize((SIZE, SIZE)), corner)
            text = column
            if column == pair["row"]:
                text += f"  {gains[asset]:+.0%}"
            pen.text((corner[0] + 6, corner[1] + SIZE + 3), text, fill=INK, font=font)
    return sheet


if __name__ == "__main__":
    main()
