"""Whether our kernels could be compiled here, found out apart from the code that does it: then one that is missing is a
failure, not a skip."""

from __future__ import annotations

import os
import shutil
import sys


def there_is_one() -> bool:
    return sys.platform == "linux" and shutil.which(os.environ.get("CXX", "c++")) is not None
