"""What the kernel needs of numba: compiling, the cache of compiled code, and calls by address. Decides nothing."""

from niyama.jit.compile import compiled, compiled_apart, function_pointer, guarded_pointer
from niyama.jit.records import Numbers, record, tuple_type

__all__ = ["Numbers", "compiled", "compiled_apart", "function_pointer", "guarded_pointer", "record", "tuple_type"]
