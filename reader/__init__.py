"""How claimed conversations are read: what needs no call is answered here, the rest is put to Grok in packs."""

from reader.packing import PackLimits, PackSize
from reader.questions import Question
from reader.reading import Batch, Canary, Reader, ReaderPolicy, Reading

__all__ = ["Batch", "Canary", "PackLimits", "PackSize", "Question", "Reader", "ReaderPolicy", "Reading"]
