"""Passes over one token in C: the semantic expert on a CPU, at the speed at which memory gives its weights.

torch needs some forty small operations a layer for a single token, and its products reach four fifths of the
memory bandwidth. `decode.c` does a whole pass in one call, `products.h` the products with every stored format
(`formats.h`), `attention.h` the attention over what was read. `library` has the machine's own compiler
compile them once; `decoding` hands a network over, `linear` uses single products.
"""
