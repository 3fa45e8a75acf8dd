"""What can be asked about the concepts of a photo: one module a question.

- :mod:`~dff.explain.questions.labels`: which classes each speaks for here, and how sure that is.
- :mod:`~dff.explain.questions.evidence`: what each adds to a class, in one of several ways.
- :mod:`~dff.explain.questions.check`: is what they say true of the model?
- :mod:`~dff.explain.questions.comparison`: which concepts of two explanations match.
"""
