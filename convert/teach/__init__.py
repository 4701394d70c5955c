"""Teachers: bigger networks that label images for a smaller one (knowledge distillation).

:mod:`.protocol` says what a teacher is, :mod:`.merge` what of its labels is believed.
"""
