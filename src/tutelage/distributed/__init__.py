"""Work shared out among processor cores."""

from tutelage.distributed.cores import Cores, cores_for

__all__ = ["Cores", "cores_for"]
