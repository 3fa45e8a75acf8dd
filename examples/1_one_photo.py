"""A photo in, its concepts out: with the embedded model, offline.

python examples/1_one_photo.py [PHOTO]
"""

import sys

import dff
from dff.demo import creatures

photo = sys.argv[1] if len(sys.argv) > 1 else creatures.render(5, size=256).image
result = dff.Explainer("demo")(photo, concepts=5)

print(result, "sees", ", ".join(c.name for c in result.predictions(top_k=2)))
for k, name in enumerate(result.bank.names):
    best = result.top_classes(k, top_k=1)[0]
    share, present = result.bank.shares[k], (result.maps()[k] > 0.5).mean()
    print(
        f"{name}: {share:.0%} of the activations, on {present:.0%} of the photo, says {best.name}"
    )

for path in result.save("dff-out/one_photo"):
    print(path)
