"""What `checkpoints show` tells people of one checkpoint: label and value. Reads nothing."""

import time

from rich.filesize import decimal

from qig_core.checkpoints.catalog import Found


def facts_of(found: Found) -> list[tuple[str, str]]:
    """What one checkpoint is, for people: label and value."""
    manifest = found.manifest
    rows = [("checkpoint", found.name), ("status", "; ".join((found.status, *found.problems)))]
    if manifest is None:
        return rows
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.t))
    rows += [
        ("step", str(manifest.step)),
        ("published", when),
        ("reason", manifest.reason),
        ("tags", " ".join(found.tags) or "–"),
        ("size", decimal(found.size)),
        ("training", "–" if manifest.training_s is None else f"{manifest.training_s:.1f} s"),
        ("parent", manifest.parent or "the birth of the run"),
        ("fingerprint", manifest.fingerprint),
        ("regime", manifest.regime or "–"),
        ("data position", "  ".join(f"{key} {value}" for key, value in manifest.data_position.items()) or "–"),
        ("versions", "  ".join(f"{key} {value}" for key, value in manifest.versions.items()) or "–"),
    ]
    if manifest.git is not None:
        rows.append(("git", manifest.git.revision + (" (with changes)" if manifest.git.dirty else "")))
    rows += [("file", f"{file.path}  {decimal(file.size)}") for file in manifest.files]
    for metric, value in sorted(manifest.metrics.items()):
        shown = manifest.nonfinite.get(metric, "not measured") if value is None else f"{value:.6g}"
        rows.append((metric, shown))
    rows += [("condition", f"{name}: {state}") for name, state in sorted(manifest.conditions.items())]
    return rows
