import numpy as np
import numpy.typing as npt

USABLE: bool

def scan(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.uint8],
    every: int,
    query: npt.NDArray[np.int8],
    step: float,
    slack: float,
    floor: float,
    rows: npt.NDArray[np.int32],
    bounds: npt.NDArray[np.float32],
) -> int: ...
def refine(
    rests: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    query: npt.NDArray[np.int8],
    step: float,
    less: float,
    rows: npt.NDArray[np.int32],
    bounds: npt.NDArray[np.float32],
) -> None: ...
