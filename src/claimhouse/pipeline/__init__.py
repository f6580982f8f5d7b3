"""Capture: from a source's changes to durable cuts, flushed and folded."""

from claimhouse.pipeline.capture import Capture
from claimhouse.pipeline.options import CaptureOptions, Summary

__all__ = ["Capture", "CaptureOptions", "Summary"]
