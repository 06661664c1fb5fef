"""A server of exported models that speaks TensorFlow Serving's protocols: gRPC and REST."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else gRPC writes a line for every peer that shakes no hands
