"""Claim a batch, have it read, save the outcomes."""

from batch_processor.processing import BatchProcessor, ProcessorLimits

__all__ = ["BatchProcessor", "ProcessorLimits"]
