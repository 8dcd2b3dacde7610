"""The encoder of a benchmark that runs without a stack."""

import os
from collections.abc import Mapping
from typing import Any

from experts.encoders.base import Encoder, EncoderSpec, load_encoder


def encoder(fields: Mapping[str, Any]) -> Encoder:
    """The encoder that ``fields`` of EncoderSpec describe, on every core. Raises ModelUnusable."""
    return load_encoder(EncoderSpec(**{**fields, "threads": os.cpu_count() or 1}))
