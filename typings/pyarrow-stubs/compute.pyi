# pyarrow makes these functions when it is imported, so a checker sees none of them in its source.
from typing import Any

def __getattr__(name: str) -> Any: ...
