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
concepts, batch_explanations, concept_outputs = dff(input_tensor, 5)
print("concepts", concepts.shape, "explanations", batch_explanations[0].shape)

probabilities = torch.softmax(torch.from_numpy(concept_outputs), axis=-1).numpy()
labels = [f"{class_names[row.argmax()]}:{row.max():.2f}" for row in probabilities]
visualization = show_factorization_on_image(
    rgb_img_float, batch_explanations[0], image_weight=0.3, concept_labels=labels
)
Image.fromarray(visualization).save("dff-out-drop-in.png")
print("wrote dff-out-drop-in.png")
