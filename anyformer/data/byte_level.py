"""The alphabet of byte-level tokenizers (Radford et al. 2019, GPT-2): one visible character for each of the 256 bytes.

Vocabularies are files of text, and bytes such as 0x00 or half a code point are not text. So printable bytes stand for
themselves, and the others, in order, for the characters from U+0100 on.
"""


def _alphabet() -> tuple[str, ...]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


ALPHABET = _alphabet()  # ALPHABET[byte] is its character
BYTES = {letter: byte for byte, letter in enumerate(ALPHABET)}


def token_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for; added tokens are written as they are."""
    if all(letter in BYTES for letter in token):
        return bytes(BYTES[letter] for letter in token)
    return token.encode()
