"""Names of databases as names of their directories.

The server writes letters, digits and `_` of ASCII as they are, most cased letters of other alphabets as `@` and two
characters of its own, and everything else as `@` and the four hexadecimal digits of its code. A name that Windows
reserves for a device ends in `@@@`. https://dev.mysql.com/doc/refman/8.4/en/identifier-mapping.html

MySQL 9 cannot be asked for it any more: its character set `filename` is hidden from statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_lowercase, ascii_uppercase

# Runs of letters whose escapes follow each other: the first letter's code, how many there are, the first escape.
# After `*` capital and small letters take turns, and a pair has one escape, in capitals and in small letters.
RUNS = """
c0+23@0G d8+7@1K df+1@1j e0+23@0g f8+8@1k 100*24@1S 131+1@2w 132*3@2X 138+1@3g 139*8@3H 149+1@3p 14a*23@3Q
178+1@1R 179*3@4T 17f+1@4w 180+1@ga 181+1@Qf 182*2@Ha 186+1@Rf 187*1@Ja 189+2@Tf 18b*1@Ka 18d+1@la 18e+1@Zb
18f+1@Wf 190+1@Yf 191*1@Ma 193+1@Jg 194+1@Mg 195+1@na 196+1@Sg 197+1@Rg 198*1@Oa 19a+2@pa 19c+1@Yg 19d+1@Hh
19e+1@ra 19f+1@Kh 1a0*3@Sa 1a6+1@Vh 1a7*1@Va 1a9+1@Yh 1aa+2@wa 1ac*1@Ya 1ae+1@Ji 1af*1@Za 1b1+2@Li 1b3*2@Gb
1b7+1@Ti 1b8*1@Ib 1ba+2@jb 1bc*1@Nb 1be+1@mb 1c4+1@Ob 1c6+1@ob 1c7+1@Pb 1c9+1@pb 1ca+1@Qb 1cc+1@qb 1cd*8@Rb
1dd+1@zb 1de*9@Gc 1f0+1@pc 1f1+1@Qc 1f3+1@qc 1f4*1@Rc 1f6+1@Na 1f8*20@Sc 220+1@Ra 221+1@sd 222*9@Td 234+6@ie
23a+2@Oe 23c+1@pe 23d+1@Pa 23e+1@Qe 23f+2@re 241+1@Vi 250+96@nf 386+1@6G 388+3@6H 38c+1@7S 38e+2@7T 390+1@5y
391+1@6L 392+1@7W 393+5@6N 398+1@7X 399+1@6T 39a+1@8W 39b+5@6V 3a0+1@8I 3a1+1@7H 3a3+1@8Y 3a4+2@7K 3a6+1@8H
3a7+5@7N 3ac+35@6g 3d0+2@7w 3d2+3@7Y 3d5+3@8h 3d9+1@8k 3da*11@8L 3f0+4@8w 3f5+2@9g 3f8+1@9i 3fb+2@9j 3fd+3@9L
400+16@S1 410+32@G0 430+48@g0 460*17@O2 48a*27@M3 4c0+2@T4 4c2+1@u4 4c3*6@V4 4d0*21@I5 500*8@P6 531+37@H7
561+37@h7 1e00*48@Gl 1e60+1@Gp 1e61+1@on 1e62*26@Pn 1e96+6@vo 1ea0*45@Lp 1f00+8@gs 1f08+8@Gs 1f10+6@os 1f18+6@Os
1f20+8@ys 1f28+8@Ys 1f30+8@mt 1f38+8@Mt 1f40+6@ut 1f48+6@Ut 1f50+8@ku 1f59+1@Lu 1f5b+1@Nu 1f5d+1@Pu 1f5f+1@Ru
1f60+8@wu 1f68+8@Wu 1f70+14@kv 1f80+8@gw 1f88+8@Gw 1f90+8@ow 1f98+8@Ow 1fa0+8@ww 1fa8+8@Ww 1fb0+5@kx 1fb6+2@qx
1fb8+2@Kx 1fba+2@Kv 1fbc+1@Nx 1fc2+3@sx 1fc6+2@wx 1fc8+4@Mv 1fcc+1@Tx 1fd0+4@yx 1fd6+2@ky 1fd8+2@Yx 1fda+2@Qv
1fe0+8@ny 1fe8+2@Ny 1fea+2@Uv 1fec+1@Sy 1ff2+2@xy 1ff6+2@hz 1ff8+2@Sv 1ffa+2@Wv 1ffc+1@Yy 2160+16@G9 2170+16@g9
"""
# In an escape, a letter of the first row counts the ones; a digit, or a letter of the second row, the twenties.
ONES = "ghijklmnopqrstuvwxyz"
TWENTIES = "0123456789abcdefghijklmnopqrstuvwxyz"
KEPT = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
# Circled letters and those of full width, from A to Z and from a to z, have the letter itself in their escape.
CIRCLED = range(0x24B6, 0x24EA)
FULL_WIDTH = (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))
RESERVED = re.compile(r"aux|con|nul|prn|(com|lpt)[1-9]", re.IGNORECASE)
UNENCODED = "#mysql50#"


def directory_of(database: str) -> str:
    """Return the name of the directory that the server makes for *database*.

    A directory whose name is not encoded, as old versions made them, is known by that name after `#mysql50#`.
    """
    if database.startswith(UNENCODED):
        return database.removeprefix(UNENCODED)
    encoded = "".join(_encode(character) for character in database)
    return f"{encoded}@@@" if RESERVED.fullmatch(encoded) else encoded


def _encode(character: str) -> str:
    if character in KEPT:
        return character
    return _ESCAPES.get(character) or f"@{ord(character):04x}"


def _run(text: str) -> Iterator[tuple[str, str]]:
    """Yield (letter, escape) of one run, such as `c0+23@0G`."""
    parts = re.fullmatch(r"(\w+)([+*])(\d+)@(.)(.)", text)
    assert parts is not None, text
    first_code, count, (left, right) = int(parts[1], 16), int(parts[3]), parts.group(4, 5)
    twenties_first = left.isdigit()
    capital = (right if twenties_first else left).isupper()
    one, twenty = (right, left) if twenties_first else (left, right)
    number = TWENTIES.index(twenty) * len(ONES) + ONES.index(one.lower())
    for place in range(count):
        tens, ones = divmod(number + place, len(ONES))
        forms = [ONES[ones].upper(), ONES[ones]] if parts[2] == "*" else [ONES[ones].upper() if capital else ONES[ones]]
        for turn, form in enumerate(forms):
            pair = (TWENTIES[tens], form) if twenties_first else (form, TWENTIES[tens])
            yield chr(first_code + place * len(forms) + turn), "@" + "".join(pair)


def _escapes() -> Iterator[tuple[str, str]]:
    for text in RUNS.split():
        yield from _run(text)
    for circled, wide, plain in zip(CIRCLED, FULL_WIDTH, ascii_uppercase + ascii_lowercase, strict=True):
        yield chr(circled), f"@@{plain}"
        yield chr(wide), f"@{plain}@"


_ESCAPES = dict(_escapes())
