"""Operations that are compiled where the processor is, if there is a C++ compiler.

    decoding.cpp, training.cpp ──compiling.py──> a shared library, kept for next time
    decoding.py, training.py   ──calls.py──> its functions, with tensors for addresses

torch's own operations do the same wherever there is none.
"""

from tutelage.native.compiling import library, version

__all__ = ["library", "version"]
