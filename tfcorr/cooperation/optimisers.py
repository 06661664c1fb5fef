"""Adam that updates only the embedding rows that a batch used."""

import tensorflow as tf
from pydantic import Field

from tfcorr.settings import Settings


class OptimiserSettings(Settings):
    """One tower's optimiser."""

    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    decay: float = Field(1.0, gt=0, le=1, description="the learning rate is multiplied by this over each epoch")
    warm_up: float = Field(0.0, ge=0, description="epochs over which the learning rate rises from zero")
    weight_decay: float = Field(
        0.0, ge=0, description="decoupled; of embeddings, only the rows that the batch used decay"
    )


class Schedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly over the settings' warm-up and falls by their decay, continuously, in every
    epoch."""

    def __init__(self, settings: OptimiserSettings, steps: int) -> None:
        """steps is how many an epoch has."""
        self.settings, self.steps = settings, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of a step, counted from 0: () float32."""
        epochs = (tf.cast(step, tf.float32) + 1) / self.steps
        risen = tf.minimum(epochs / self.settings.warm_up, 1.0) if self.settings.warm_up else 1.0
        return self.settings.learning_rate * risen * self.settings.decay ** (epochs - 1 / self.steps)


class LazyAdam(tf.keras.optimizers.Adam):
    """Adam (Kingma and Ba, ICLR'15) with decoupled weight decay; lazy for gradients that are IndexedSlices.

    Of a table, moments and values change only in the rows that the gradient names, each once however often it is named;
    rows that are not named keep their moments as they are. A step's cost is so independent of the table's length.
    """

    def __init__(
        self, learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, jit_compile=False, name="LazyAdam")
        self.decay = weight_decay

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """One variable's step; the base class has already added up the slices that name the same row."""
        step = tf.cast(self.iterations + 1, variable.dtype)
        rate = tf.cast(self.learning_rate, variable.dtype)
        corrected = rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        index = self._index_dict[self._var_key(variable)]
        m, v = self._momentums[index], self._velocities[index]
        if not isinstance(gradient, tf.IndexedSlices):
            new_m = m.assign_add((gradient - m) * (1 - self.beta_1))
            new_v = v.assign_add((tf.square(gradient) - v) * (1 - self.beta_2))
            variable.assign_sub(corrected * new_m / (tf.sqrt(new_v) + self.epsilon) + rate * self.decay * variable)
            return
        rows, values = gradient.indices, gradient.values
        old_m, old_v = tf.gather(m, rows), tf.gather(v, rows)
        new_m = old_m + (values - old_m) * (1 - self.beta_1)
        new_v = old_v + (tf.square(values) - old_v) * (1 - self.beta_2)
        change = corrected * new_m / (tf.sqrt(new_v) + self.epsilon)
        if self.decay:  # reading rows of a table that no cache holds takes its time
            change += rate * self.decay * tf.gather(variable, rows)
        m.scatter_update(tf.IndexedSlices(new_m, rows))
        v.scatter_update(tf.IndexedSlices(new_v, rows))
        variable.scatter_sub(tf.IndexedSlices(change, rows))
