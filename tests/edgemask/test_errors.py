"""The exceptions: caught as edgemask's own and as what they are in Python."""

import pickle

import pytest

import edgemask
from edgemask import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ModelError, ValueError),
        (errors.RuntimeUnavailable, ImportError),
        (errors.InputError, ValueError),
        (errors.SourceError, OSError),
        (errors.CameraBusy, OSError),
        (errors.CameraMissing, OSError),
        (errors.OutputError, OSError),
    ],
)
def test_each_error_is_also_a_builtin(error, builtin):
    assert issubclass(error, errors.EdgeMaskError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize("name", errors.__all__)
def test_message_is_shown_as_given_and_survives_pickling(name):
    error = getattr(errors, name)("photo.jpg is missing: check the path")
    assert str(error) == "photo.jpg is missing: check the path"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_cameras_are_sources():
    assert issubclass(errors.CameraBusy, errors.SourceError)
    assert issubclass(errors.CameraMissing, errors.SourceError)


def test_errors_are_exported():
    assert edgemask.errors is errors
