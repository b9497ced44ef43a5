"""Operations of decoding that are compiled where the processor is, if there is a C++ compiler.

    decoding.cpp ──compiling.py──> a shared library, kept for next time ──decoding.py──> tensors

torch's own operations do the same wherever there is none.
"""

from tutelage.native.compiling import library

__all__ = ["library"]
