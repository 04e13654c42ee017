"""What can go wrong for a user, each with the exit code that the command line gives it.

A message is one line: what came, what is allowed, what to do. Misuse of the library from Python is a plain
`ValueError`.
"""


class ConfigError(ValueError):
    """A recipe, an option or a combination of parts that cannot be used."""

    exit_code = 2


class InputError(ValueError):
    """A data, weights or run file that is missing, damaged or not what it should be."""

    exit_code = 3


class ResourceError(OSError):
    """No memory, no space on the disk, no permission, or a folder that another process is using."""

    exit_code = 4


class NumericalStop(ArithmeticError):
    """A loss or a gradient that is no longer a number."""

    exit_code = 5
