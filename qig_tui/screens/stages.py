"""How far a command has come, as lines of a dialog."""

from rich.text import Text

from qig_tui.following import Followed
from qig_tui.text import duration, pad, pad_left


def stages_text(followed: Followed) -> Text:
    """Each stage with its time; the one that is awaited; the end in words where it is no success."""
    asked, text = followed.asked, Text()
    for i, stage in enumerate(asked.stages):
        done = i < len(asked.stages) - 1 or asked.ended
        glyph = "✖" if stage.name == "refused" else "✓" if done else "●"
        text.append(f"{glyph} {pad(stage.name, 11)}", style="bold")
        text.append(f"{pad_left(duration(stage.after_s), 7)}  ", style="dim")
        text.append(f"{stage.detail}\n")
    if followed.outcome == "waiting":
        record = "  for the run's own record of it" if followed.unproven else ""
        text.append(f"○ waiting    {pad_left(duration(asked.elapsed_s), 7)}{record}", style="dim")
    elif followed.words:
        glyph = "" if followed.outcome == "refused" else "✖ "
        text.append(f"\n{glyph}{followed.words}", style="bold")
    return text
