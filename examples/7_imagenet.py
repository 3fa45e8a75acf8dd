"""What a classifier goes by, as Captum's ImageNet tutorial asks it, and many methods in one panel.

Integrated gradients, occlusion and layer Grad-CAM; with the embedded model, offline, or another:

pip install 'deep-feature-factorization[attributions]'
python examples/7_imagenet.py
python examples/7_imagenet.py --photo PHOTO --model resnet50 --weights FILE --labels FILE
"""

import argparse
from pathlib import Path

import dff
from dff.attributions import TargetLayer, attribute
from dff.demo import creatures
from dff.errors import MissingExtraError
from dff.rendering.attributions import Look, attribution_panel


def main() -> None:
    """Write a figure a method, and the panel of all."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--photo", help="a path; otherwise a drawing")
    words.add_argument("--model", default="demo", help="a name, as dff.load_model takes it")
    words.add_argument("--weights", default="default", help="a local file")
    words.add_argument("--labels", help="class names, one a line")
    words.add_argument("--mean", type=float, help="of the input's normalisation")
    words.add_argument("--std", type=float)
    words.add_argument("--size", type=int, help="of the input, in pixels")
    given = words.parse_args()
    loaded = dff.load_model(
        given.model, weights=given.weights, labels=given.labels,
        mean=given.mean, std=given.std, size=given.size,
    )  # fmt: skip
    explainer = dff.Explainer(loaded)
    photo = given.photo or creatures.render(5, size=256).image
    folder = Path("dff-out/imagenet")
    folder.mkdir(parents=True, exist_ok=True)

    result = explainer(photo)
    best, x = result.predictions(top_k=1)[0], result.photos[0].image[None]
    print(f"class {best.name}, {best.probability:.2f}")

    # How the pixels add up to the score, along the line from grey to the photo.
    found = attribute(
        explainer.model, x, best.index, "integrated-gradients", settings={"n_steps": 50}
    )
    print(f"integrated gradients: {found.values.sum():.3f}, off by {float(found.delta):.2g}")
    looks = [Look("original"), Look("heat_map", "positive"), Look("masked_image", "positive")]
    figures = {"integrated_gradients": (found, looks)}

    # What the score loses when a window is covered.
    side = min(x.shape[2:]) // 8
    windows = {"window": side, "stride": side // 2}
    found = attribute(explainer.model, x, best.index, "occlusion", settings=windows)
    looks = [Look("original"), Look("heat_map"), Look("blended_heat_map", "positive"),
             Look("blended_heat_map", "negative"), Look("masked_image", "positive")]  # fmt: skip
    figures["occlusion"] = (found, looks)

    # Where a deep layer speaks for the class, and against it.
    layer = TargetLayer(explainer.layer, explainer.layout, result.photos[0].layer_grid)
    found = attribute(explainer.model, x, best.index, "layer-gradcam", layer=layer)
    looks = [Look("original"), Look("blended_heat_map"), Look("alpha_scaling", "positive")]
    figures["layer_gradcam"] = (found, looks)
    for name, (found, looks) in figures.items():
        titles = [" ".join((look.style, look.sign)).replace("_", " ") for look in looks[1:]]
        panel = attribution_panel(
            found.values[0], x[0], looks, titles=[name.replace("_", " "), *titles],
            preprocessing=explainer.preprocessing,
        )  # fmt: skip
        panel.save(folder / f"{name}.png")
        print("wrote", folder / f"{name}.png")

    # All of them beside the concepts, for the two likeliest classes.
    compared = dff.compare(
        photo, model=explainer, classes=2, settings={"occlusion": windows},
        methods=["concepts", "gradcam", "layer-gradcam", "integrated-gradients", "occlusion"],
    )  # fmt: skip
    for path in compared.save(folder, formats=["png", "json"]):
        print("wrote", path)


if __name__ == "__main__":
    try:
        main()
    except MissingExtraError as error:
        print("skipped:", error)
