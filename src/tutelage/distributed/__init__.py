"""Work shared out among processor cores."""

from tutelage.distributed.cores import Cores

__all__ = ["Cores"]
