"""trackio, whose database cannot be written."""

__all__ = ["init"]


class Run:
    def log(self, metrics, step):
        raise OSError("database is locked")

    def finish(self):
        raise OSError("database is locked")


def init(**options):
    return Run()
