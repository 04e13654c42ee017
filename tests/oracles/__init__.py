"""Independent definitions that the library is compared with."""
