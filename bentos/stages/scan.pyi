import numpy as np
import numpy.typing as npt

USABLE: bool

def scan(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.uint8],
    query: npt.NDArray[np.int8],
    step: float,
    slack: float,
    most: npt.NDArray[np.float32],
    least: npt.NDArray[np.float32],
) -> None: ...
