"""A module that takes a minute to import, as torch does on a very busy machine."""

import os
import time
from pathlib import Path

Path(os.environ["SLOW_IMPORT_MARK"]).write_text("importing")
time.sleep(60)
