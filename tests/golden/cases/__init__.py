"""The references that published model types are held to, family by family."""

from golden.cases import bert, llama

CASES = (*bert.CASES, *llama.CASES)
