"""What pytorch-grad-cam's users import beside the methods, under the same names.

- :mod:`gradcam.utils.model_targets`: what a map explains, as a number of a model's output.
- :mod:`gradcam.utils.image`: photos to inputs and back, maps over photos.
- :mod:`gradcam.utils.guided_backprop`: gradients of the image itself.
- :mod:`gradcam.utils.svd_on_activations`: principal components of maps.
- :mod:`gradcam.utils.reshape_transforms`: outputs of transformers and detectors as maps.
"""
