"""The code that uses Numba and llvmlite beyond their public interfaces.

docs/codegen.md says what each patch is for.  No other package imports ``numba.core`` or patches Numba.
"""
