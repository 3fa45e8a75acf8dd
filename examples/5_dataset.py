"""The concepts that a folder of images shares: a run on disk, and how it is used.

python examples/5_dataset.py
"""

import tempfile
from pathlib import Path

from PIL import Image

import dff
from dff.demo import creatures

with tempfile.TemporaryDirectory() as folder:
    for seed in range(40):
        scene = creatures.render(seed, species=("lion", "zebra")[seed % 2])
        path = Path(folder, "photos", scene.species, f"{seed}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path)

    run = dff.colocalize(f"{folder}/photos", f"{folder}/run", model="demo", concepts=6)
    print(sorted(path.name for path in Path(folder, "run").iterdir()))
    for k, name in enumerate(run.bank.names):
        print(f"{name}: {run.bank.shares[k]:.0%} of the activations")
    print(run.table("instances").to_pylist()[0])

    later = dff.Explainer("demo")(creatures.render(99, species="lion").image, bank=run.bank)
    print("in a later image:", later)
