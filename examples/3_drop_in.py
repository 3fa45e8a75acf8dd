"""The lines of pytorch-grad-cam's concept tutorial, with the import changed.

python examples/3_drop_in.py
"""

import numpy as np
import torch
from PIL import Image

from dff import DeepFeatureFactorization, load_model, show_factorization_on_image
from dff.demo import creatures

loaded = load_model("demo")
model, class_names = loaded.module, loaded.class_names

image = creatures.render(5, size=256).image
rgb_img_float = np.float32(image) / 255
input_tensor = (torch.from_numpy(rgb_img_float).permute(2, 0, 1)[None] - 0.5) / 0.25

dff = DeepFeatureFactorization(
    model=model, target_layer=model.layer4, computation_on_concepts=model.fc
)


def visualize(n_components: int, top_k: int = 2) -> np.ndarray:
    """Draw the photo's concepts, each with the classes that the head gives it alone."""
    concepts, batch_explanations, concept_outputs = dff(input_tensor, n_components)
    print("concepts", concepts.shape, "explanations", batch_explanations[0].shape)
    probabilities = torch.softmax(torch.from_numpy(concept_outputs), axis=-1).numpy()
    labels = [
        "\n".join(f"{class_names[i]}:{row[i]:.2f}" for i in row.argsort()[::-1][:top_k])
        for row in probabilities
    ]
    return show_factorization_on_image(
        rgb_img_float, batch_explanations[0], image_weight=0.3, concept_labels=labels
    )


# Too few concepts put the whole animal in one; too many split a part among several that say the
# same, and name scraps of the background.
for n_components, name in ((5, ""), (2, "-few"), (15, "-many")):
    path = f"dff-out-drop-in{name}.png"
    Image.fromarray(visualize(n_components)).save(path)
    print("wrote", path)
