"""The Keras 3 backend: one decoder, described by data, for today's architectures.

The names are imported when they are used, because clm imports this package to print help.
"""

from clm_core.lazy import lazy_names

_HOMES = {
    "KerasBackend": "backend",
    "KerasOptions": "backend",
}

__all__ = sorted(_HOMES)


def _quiet() -> None:
    from clm_tf.keras3.backend import KerasBackend

    KerasBackend().quiet()


__getattr__, __dir__ = lazy_names(__name__, _HOMES, _quiet)
