"""What the hardware allows, measured beside what is compared."""

from time import perf_counter

SIZE = 2**28  # bytes: more than any cache


def reading_s(size: int, threads: int) -> float:
    """Seconds to take `size` bytes from memory once."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        numbers = torch.ones(SIZE // 4)
        seconds = []
        for _ in range(5):
            start = perf_counter()
            numbers.sum()
            seconds.append(perf_counter() - start)
        return size / SIZE * min(seconds)
    finally:
        torch.set_num_threads(before)
