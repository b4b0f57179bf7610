"""A number of things in words."""


def count(number: int, thing: str, plural: str = "s") -> str:
    """`1 epoch`, `0 epochs`, `1,320 steps`; `plural` is what is put behind `thing` for any number but one."""
    return f"{number:,} {thing}{'' if number == 1 else plural}"
