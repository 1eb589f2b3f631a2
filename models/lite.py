"""The two models as LiteRT files, for cars and small machines: no TensorFlow where they run.

`autoencoder.tflite` and `lstm.tflite` lie beside the SavedModels and compute the same: raw features
in, scores out; scaler, residual scales and Platt's line are inside. Each takes one row, or one
window, at a time, as a car has them, in a graph without loops or unknown sizes (the LSTM is
unrolled: as a loop it does not convert at any batch size but a fixed one, and then only frozen).

Importing this module imports neither TensorFlow nor LiteRT; writing needs the one, running the other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ArtefactRefused
from models.features import FEATURES, WINDOW, Features

if TYPE_CHECKING:
    import keras

    from models.conformal import Interval
    from models.network import Layout, Scaler

AUTOENCODER: Final = "autoencoder.tflite"
LSTM: Final = "lstm.tflite"

_LSTM: Final = ((WINDOW, len(FEATURES)), (len(FEATURES),))

Floats = NDArray[np.float32]


def export_lite(
    network: "keras.Model",
    scaler: "Scaler",
    scales: Floats,
    path: Path,
    layout: "Layout | None" = None,
) -> None:
    """Write the autoencoder: row [1, width] -> score [1], residuals [1, targets]; see `Lite`.

    Arguments as of `network.export_autoencoder`; None is the fleet's layout.
    """
    import tensorflow as tf  # noqa: PLC0415

    from models.network import FLEET  # noqa: PLC0415

    seen = FLEET if layout is None else layout
    hidden = tf.constant(seen.hides, tf.float32)
    own = tf.constant(np.eye(seen.width, dtype=np.float32)[list(seen.targets)])

    # `network.residuals` of one row; its diagonal needs a kernel that LiteRT does not have.
    def serve(row: Any) -> tuple[Any, Any]:
        scaled = scaler(row)
        rebuilt = network(tf.concat([(1 - hidden) * scaled, hidden], 1))
        unit = tf.gather(row, seen.regimes, axis=1) @ scales if seen.regimes else scales
        told = tf.reduce_sum(own * (scaled - rebuilt), axis=1)[None] / unit
        return tf.reduce_max(tf.abs(told), axis=1), told

    _write(serve, [(seen.width,)], path)


def export_lite_lstm(
    network: "keras.Model",
    scaler: "Scaler",
    line: tuple[float, float],
    interval: "Interval",
    path: Path,
) -> None:
    """Write the LSTM: a window and the deviations at its end -> `rul.served` [1, 4]; see `LiteLstm`.

    Arguments as of `rul.export`.
    """
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    from models.rul import served  # noqa: PLC0415

    def unrolled(layer: "keras.Layer") -> "keras.Layer":
        config = layer.get_config()
        if isinstance(layer, keras.layers.LSTM):
            config["unroll"] = True
        return layer.__class__.from_config(config)

    flat = keras.models.clone_model(network, clone_function=unrolled)
    flat.set_weights(network.get_weights())

    def serve(window: Any, deviations: Any) -> Any:
        return tf.stack(served(flat, scaler, line, interval, (window, deviations)), axis=1)

    _write(serve, _LSTM, path)


def _write(serve: Any, shapes: Sequence[tuple[int, ...]], path: Path) -> None:
    import tensorflow as tf  # noqa: PLC0415
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    signature = [tf.TensorSpec((1, *shape), tf.float32) for shape in shapes]
    graph = tf.function(serve, input_signature=signature).get_concrete_function()
    # The converter does not find the variables of a Keras 3 network: they become constants before.
    graph = convert_variables_to_constants_v2(graph)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
    # Only what every LiteRT runtime has: a car brings no TensorFlow kernels along.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path.write_bytes(converter.convert())


class _Interpreter:
    """One LiteRT graph: inputs of different `shapes` in, outputs of different `ranks` out.

    Not for several threads at once.
    """

    def __init__(
        self, data: bytes, shapes: Sequence[tuple[int, ...]], ranks: tuple[int, ...]
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

        try:
            self._graph = Interpreter(model_content=data, num_threads=1)
            self._graph.allocate_tensors()
            inputs, outputs = self._graph.get_input_details(), self._graph.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise ArtefactRefused(f"it is no LiteRT model ({error!r:.120})") from error
        # A frozen graph names and orders its ends as it likes; their shapes tell them apart.
        by_rank = {len(output["shape"]): output["index"] for output in outputs}
        by_shape = {tuple(found["shape"].tolist()): found["index"] for found in inputs}
        wanted = [(1, *shape) for shape in shapes]
        if sorted(by_shape) != sorted(wanted) or sorted(by_rank) != sorted(ranks):
            raise ArtefactRefused(f"it takes {sorted(by_shape)}; inputs of {wanted} are accepted")
        self._inputs = [by_shape[shape] for shape in wanted]
        self._outputs = [by_rank[rank] for rank in ranks]

    def __call__(self, *inputs: Features) -> list[Floats]:
        """The outputs for one of each input, without their batch axis."""
        for index, one in zip(self._inputs, inputs, strict=True):
            self._graph.set_tensor(index, one[None])
        self._graph.invoke()
        return [self._graph.get_tensor(index)[0] for index in self._outputs]


class Lite:
    """The autoencoder of `autoencoder.tflite`; raises `ArtefactRefused` for bytes that are none.

    `width`: features of a row.
    """

    def __init__(self, data: bytes, width: int = len(FEATURES)) -> None:
        self._call = _Interpreter(data, [(width,)], (1, 2))

    def rows(self, features: Features) -> tuple[Floats, Floats]:
        """Anomaly scores (n,) and residuals (n, targets) of rows (n, width); n is at least 1."""
        told = [self._call(row) for row in np.ascontiguousarray(features, np.float32)]
        return np.array([one[0] for one in told]), np.stack([one[1] for one in told])


class LiteLstm:
    """The LSTM of `lstm.tflite`; raises `ArtefactRefused` for bytes that are none."""

    def __init__(self, data: bytes) -> None:
        self._call = _Interpreter(data, _LSTM, (2,))

    def windows(self, windows: Features, deviations: Features) -> Floats:
        """(k, 4) of windows (k, WINDOW, FEATURES) and deviations (k, FEATURES) at their ends.

        Probability of failure within the horizon; life left, its lower and upper end, in horizons.
        """
        pairs = zip(
            np.ascontiguousarray(windows, np.float32),
            np.ascontiguousarray(deviations, np.float32),
            strict=True,
        )
        return np.array([self._call(*pair)[0] for pair in pairs], np.float32).reshape(-1, 4)
