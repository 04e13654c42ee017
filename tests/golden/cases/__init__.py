"""The references that published model types are held to, family by family."""

from golden.cases import bert, experts, gemma, gpt, judges, llama, mamba, senses, translate

CASES = (
    *bert.CASES,
    *experts.CASES,
    *gemma.CASES,
    *gpt.CASES,
    *judges.CASES,
    *llama.CASES,
    *mamba.CASES,
    *senses.CASES,
    *translate.CASES,
)
